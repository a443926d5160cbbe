"""What Celery works out for every input, worked out once: the same answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context, Task
from celery.utils.threads import _LocalStack
from kombu import serialization
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.message import Message
from kombu.utils import json as kombu_json

from celery_concurrent import quickjson
from celery_concurrent.pool.shortcuts import (
    Shortcuts,
    custom_headers,
    decode_quickly,
    decoded_once,
)
from celery_concurrent.pool.stacks import QuickStack

theirs = Context._get_custom_headers
NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery(set_as_current=False)
    shortcuts = Shortcuts(app)
    shortcuts.install()
    yield app
    shortcuts.uninstall()


@pytest.mark.parametrize(
    "request_fields",
    [
        {},
        {"id": "1", "task": "t", "lang": "py", "argsrepr": "()", "kwargsrepr": "{}"},
        {"id": "1", "tenant": "acme", "trace": {"a": 1}, "compression": None},
        {"id": "1", "get": 1, "children": 2, "own": None},
    ],
)
def test_the_users_headers_are_those_that_celery_finds(request_fields: dict[str, Any]) -> None:
    context = Context({})
    assert custom_headers(context, request_fields) == theirs(context, request_fields)
    more = {**request_fields, "extra": "x"}
    assert custom_headers(context, request_fields, extra="x") == theirs(context, more)
    assert custom_headers(context, list(more.items())) == theirs(context, more)


def test_a_request_has_its_headers_while_a_node_runs(app: Celery) -> None:
    assert Context._get_custom_headers is custom_headers
    assert Context({"id": "1", "tenant": "acme"}).headers == {"tenant": "acme"}
    assert Context({"id": "1"}).headers is None


def test_the_time_zone_is_asked_once(app: Celery) -> None:
    assert app.uses_utc_timezone() is Celery(set_as_current=False).uses_utc_timezone() is True


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timezone": "Europe/Berlin"},
        {"timezone": "America/New_York", "enable_utc": False},
        {"enable_utc": False},
    ],
)
def test_results_are_dated_as_by_celery(settings: dict[str, Any]) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(settings)
    before = app.now()
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert "now" in vars(app)
    now = app.now()
    shortcuts.uninstall()
    assert before <= now <= app.now()
    assert (now.tzinfo, now.utcoffset()) == (before.tzinfo, before.utcoffset())


def test_an_app_with_a_clock_of_its_own_keeps_it() -> None:
    class Frozen(Celery):
        def now(self) -> datetime:
            return datetime(2020, 1, 1, tzinfo=timezone.utc)

    app = Frozen(set_as_current=False)
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert app.now().year == 2020
    shortcuts.uninstall()

    app = Celery(set_as_current=False)
    app.now = own = partial(datetime, 2020, 1, 1)
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert app.now().year == 2020
    shortcuts.uninstall()
    assert app.now is own


@pytest.mark.parametrize("is_extended", [True, False])
def test_results_are_extended_where_the_setting_says_so(is_extended: bool) -> None:
    app = Celery(set_as_current=False)
    app.conf.result_extended = is_extended
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert "find_value_for_key" in vars(app.conf)
    assert app.conf.find_value_for_key("extended", "result") is is_extended
    assert "find_value_for_key" not in app.conf.table()
    shortcuts.uninstall()
    assert "find_value_for_key" not in vars(app.conf)


def test_everything_is_put_back() -> None:
    app = Celery(set_as_current=False)
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert serialization.registry._decoders["application/json"] is quickjson.loads
    shortcuts.uninstall()
    assert serialization.registry._decoders["application/json"] is kombu_json.loads
    assert serialization.registry._encoders["json"].encoder is kombu_json.dumps
    assert Context._get_custom_headers is theirs
    assert not {"uses_utc_timezone", "now"} & vars(app).keys()


def test_a_json_of_the_users_own_stays() -> None:
    registry = serialization.registry
    try:
        registry.register("json", json.dumps, json.loads, "application/json", "utf-8")
        shortcuts = Shortcuts(Celery(set_as_current=False))
        shortcuts.install()
        assert registry._decoders["application/json"] is json.loads
        message = made(b"[[], {}, {}]")
        decode_quickly(message)
        assert message._decoded_cache is None
        shortcuts.uninstall()
        assert registry._decoders["application/json"] is json.loads
    finally:
        serialization.register_json()


def plain(value: Any) -> Any:
    return value


class CalledTask(Task):
    """Has a call of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def test_celerys_own_call_is_no_users(app: Celery) -> None:
    trace._install_stack_protection()
    shortcuts = Shortcuts(app)
    usual = app.task(name="plain")(plain)
    called = app.task(name="called", base=CalledTask)(plain)
    try:
        assert trace.task_has_custom(usual, "__call__")
        shortcuts.install()
        assert not trace.task_has_custom(usual, "__call__")
        assert trace.task_has_custom(called, "__call__")
        shortcuts.uninstall()
        assert trace.task_has_custom(usual, "__call__")
    finally:
        trace.reset_worker_optimizations(app)


def test_a_call_that_others_have_wrapped_is_theirs(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = functools.wraps(Task.__call__)(plain)
    monkeypatch.setattr(Task, "__call__", wrapped)
    module = wrapped.__module__
    shortcuts = Shortcuts(app)
    shortcuts.install()
    assert wrapped.__module__ == module
    shortcuts.uninstall()


def test_the_stacks_are_quick_while_a_node_runs() -> None:
    app = Celery(set_as_current=False)
    task = app.task(name="plain")(plain)
    shortcuts = Shortcuts(app)
    shortcuts.install()
    stacks = (_task_stack, task.request_stack)
    assert [type(stack) for stack in stacks] == [QuickStack, QuickStack]
    shortcuts.uninstall()
    assert [type(stack) for stack in stacks] == [_LocalStack, _LocalStack]


def made(body: bytes, **more: Any) -> Message:
    said = {"accept": {"application/json"}, "content_type": "application/json", **more}
    return Message(body, content_encoding="utf-8", **said)


def test_a_body_is_decoded_as_kombu_would(app: Celery) -> None:
    message = made(b'[[{"__type__": "uuid", "__value__": {"hex": "%s"}}], {}, {}]' % (b"0" * 32))
    expected = message.decode()
    message._decoded_cache = None
    decode_quickly(message)
    assert message._decoded_cache == message.payload == expected


@pytest.mark.parametrize(
    "payload",
    [
        [[1, "two"], {"three": 3}, NOTHING],
        [["}, {}]"], {}, NOTHING],
        [[], {}, {**NOTHING, "chain": []}],
        [NOTHING],
        [1, NOTHING],
        [1, 2, 3, NOTHING],
        {"one": [1, NOTHING]},
    ],
)
def test_a_body_is_decoded_as_json_whatever_it_ends_with(app: Celery, payload: Any) -> None:
    message = made(kombu_json.dumps(payload).encode())
    decode_quickly(message)
    assert message._decoded_cache == payload


@pytest.mark.parametrize("start", ["[[], {}", "[[]", "[[], {", "[[], {}, {}]", '["', ""])
def test_what_ends_like_a_body_need_not_be_one(app: Celery, start: str) -> None:
    text = f"{start}, {kombu_json.dumps(NOTHING)}]"
    message = made(text.encode())
    decode_quickly(message)
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    assert message._decoded_cache == expected


def test_names_of_what_is_embedded_are_made_once(app: Celery) -> None:
    body = kombu_json.dumps([[], {}, NOTHING]).encode()
    first, second = made(body), made(body)
    decode_quickly(first)
    decode_quickly(second)
    assert all(a is b for a, b in zip(first.payload[2], second.payload[2], strict=True))
    assert first.payload[2] is not second.payload[2]


def test_what_is_not_accepted_is_not_decoded(app: Celery) -> None:
    message = made(b"[[], {}, {}]", accept={"application/x-yaml"})
    decode_quickly(message)
    with pytest.raises(ContentDisallowed):
        _ = message.payload


def test_what_is_no_json_is_kombus_to_refuse(app: Celery) -> None:
    message = made(b"[[], {}")
    decode_quickly(message)
    with pytest.raises(DecodeError):
        _ = message.payload


def once(payload: Any, content_type: str | None = "application/json") -> tuple[Any, ...]:
    body = json.dumps(payload).encode()
    request = SimpleNamespace(message=SimpleNamespace(payload=payload, body=body))
    return decoded_once(request, ("task", "id", {}, body, content_type, "utf-8"))


def test_a_body_of_plain_values_is_decoded_once() -> None:
    payload = [[1, "two", 3.0, None, True], {"named": "value"}, NOTHING]
    *_, body, content_type, encoding = once(payload)
    assert (body, content_type, encoding) == (tuple(payload), None, None)
    # What the tracer adds and removes does not show in the request.
    assert [mine is theirs for mine, theirs in zip(body, payload, strict=True)] == [
        *(False, False, True)
    ]


@pytest.mark.parametrize(
    "payload",
    [
        [[[1, 2]], {}, NOTHING],
        [[], {"named": {"a": 1}}, NOTHING],
        [[], {}, {**NOTHING, "chain": [{"task": "next"}]}],
        [[], {}],
    ],
)
def test_what_a_function_may_change_is_decoded_for_it_alone(payload: Any) -> None:
    *_, body, content_type, _ = once(payload)
    assert (body, content_type) == (json.dumps(payload).encode(), "application/json")


def test_a_body_that_a_request_has_made_is_what_runs() -> None:
    message = SimpleNamespace(payload=[[1], {}, NOTHING], body=b"sealed")
    args: tuple[Any, ...] = ("task", "id", {}, b"[[2], {}, {}]", "application/json", "utf-8")
    assert decoded_once(SimpleNamespace(message=message), args) == args


def test_what_came_decoded_is_passed_on() -> None:
    args: tuple[Any, ...] = ("task", "id", {}, ([], {}, {}), None, None)
    request = SimpleNamespace(message=SimpleNamespace(payload={"args": []}, body=b"{}"))
    assert decoded_once(request, args) == args
