"""Which results the event loop may encode: those that take no time, and no code of the user's."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.backends.redis import RedisBackend
from kombu import serialization

from celery_concurrent.redis.encoding import encodes_at_once, is_short


class Text(str):
    """May have an encoder of the user's."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [None, True, 7, -1.5, "ok", [], (1, "a"), {"label": "cat", "score": 0.9}, float("nan")],
)
def test_plain_values_are_short(value: Any) -> None:
    assert is_short((("id", value, "SUCCESS"), {}))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 201,
        10**40,
        [0] * 17,
        ["x" * 201],
        {"x" * 201: 1},
        {1: "not a text"},
        {"deep": {}},
        [[1]],
        Text("a"),
        b"bytes",
        {1, 2},
        datetime(2020, 1, 1, tzinfo=timezone.utc),
        object(),
    ],
)
def test_what_is_longer_or_not_plain_is_not(value: Any) -> None:
    assert not is_short((("id", value, "SUCCESS"), {}))


def test_a_result_with_children_is_not() -> None:
    for children, expected in (([], True), (["one"], False)):
        request = SimpleNamespace(children=children)
        assert is_short((("id", 1, "SUCCESS"), {"request": request})) is expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"result_serializer": "pickle"}, True),
        ({"result_serializer": "own"}, False),
        ({"result_extended": True}, False),
        ({"result_compression": "gzip"}, False),
    ],
)
def test_what_may_take_long_or_wait_is_told_by_the_settings(
    settings: dict[str, Any], expected: bool
) -> None:
    serialization.register("own", repr, eval, content_type="application/x-own")
    app = Celery(set_as_current=False, backend="redis://")
    app.conf.update(settings)
    backend = RedisBackend(app=app, url="redis://")
    serialization.unregister("own")
    if "result_compression" in settings and not hasattr(backend, "compression"):
        pytest.skip("Celery 5.6 compresses no results")
    assert encodes_at_once(backend) is expected
