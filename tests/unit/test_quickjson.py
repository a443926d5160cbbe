"""JSON as kombu reads and writes it."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from celery_concurrent import quickjson

SPECIAL = [
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    date(2026, 1, 2),
    time(3, 4),
    Decimal("1.50"),
    uuid.UUID(int=7),
    b"bytes",
    b"\xff\xfe",
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(SPECIAL),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
    max_leaves=20,
)


@given(values)
def test_it_reads_and_writes_what_kombu_does(value: Any) -> None:
    text = kombu_json.dumps(value)
    assert quickjson.dumps(value) == text
    for form in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        assert quickjson.loads(form) == kombu_json.loads(form)


@pytest.mark.parametrize(
    "text",
    [
        r'{"\u005f_type__": "decimal", "__value__": "1.5"}',
        r'{"\u005F\u005Ft\u0079pe__": "decimal", "__value__": "1.5"}',
    ],
)
def test_an_escaped_name_stands_for_a_type_as_well(text: str) -> None:
    assert quickjson.loads(text) == kombu_json.loads(text) == Decimal("1.5")


@pytest.mark.parametrize("text", ["", "{", "[1] 2", "nul", '{"__type__": "no", "__value__": 1}'])
def test_what_kombu_refuses_it_refuses(text: str) -> None:
    with pytest.raises(ValueError) as theirs:  # noqa: PT011  # which one, is compared
        kombu_json.loads(text)
    with pytest.raises(ValueError) as ours:  # noqa: PT011
        quickjson.loads(text)
    assert type(ours.value) is type(theirs.value)


def test_it_writes_what_json_would_with_kombus_encoder() -> None:
    value = {"ü": [1.0, float("inf"), {"a": None}]}
    assert quickjson.dumps(value) == json.dumps(value, cls=kombu_json.JSONEncoder)
    with pytest.raises(TypeError):
        quickjson.dumps(object())
