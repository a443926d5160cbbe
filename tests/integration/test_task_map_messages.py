"""What ``task_map`` publishes is, field by field, what ``apply_async`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import signals

from celery_concurrent import Arguments, task_map
from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.witness import watching

SOURCE = """
from celery import Celery, Task
from celery_concurrent import Arguments, concurrent, task_map
from celery_concurrent.routing import queue_per_task

app = Celery(__name__)
NAME = __name__

@app.task
def plain(first, second=None, **more):
    return first

@app.task(queue="busy", priority=7, expires=600, time_limit=30, soft_time_limit=20,
          serializer="yaml", compression="bzip2", ignore_result=True)
def particular(first, second=None):
    return first

@app.task
@concurrent(max_inputs=10)
async def limited(first, second=None):
    return first

@app.task(typing=False)
def untyped():
    return None

@app.task(queue="parents")
@concurrent(max_inputs=2)
def parent():
    plain.apply_async((1, 2), queue="sink")
    task_map(plain, [Arguments(1, 2)], queue="sink").publish()

@app.task(queue="parents")
@concurrent(max_inputs=2)
async def async_parent():
    plain.apply_async((1, 2), queue="sink", priority=3)
    await task_map(plain, [Arguments(1, 2)], queue="sink", priority=3).apublish()

@app.task(queue="parents")
@concurrent(max_inputs=2)
async def blocking_parent():
    plain.apply_async((1, 2), queue="sink")
    task_map(plain, [Arguments(1, 2)], queue="sink").publish()
"""

#: What a call may be given, and what the messages of it must have in common with it.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "countdown": {"countdown": 60},
    "eta": {"eta": datetime(2040, 1, 2, 3, 4, 5, tzinfo=timezone.utc)},
    "expires": {"expires": 90.5},
    "expires-at": {"expires": datetime.now(timezone.utc) + timedelta(hours=1)},
    "priority": {"priority": 6},
    "queue": {"queue": "elsewhere"},
    "exchange": {"exchange": "celery", "routing_key": "celery"},
    "headers": {"headers": {"tenant": "a", "nested": {"x": [1, 2]}}},
    "headers-of-celery": {"headers": {"origin": "me", "argsrepr": "(secret)", "id": "fixed"}},
    "stamps": {"stamped_headers": ["stamp", "other"], "stamp": "s", "other": ["o"]},
    "limits": {"time_limit": 10, "soft_time_limit": 5.5},
    "reprs": {"argsrepr": "(...)", "kwargsrepr": "{...}"},
    "reply_to": {"reply_to": "answers"},
    "ids": {"root_id": "root", "parent_id": "parent", "group_id": "group", "group_index": 3},
    "shadow": {"shadow": "another name"},
    "ignore_result": {"ignore_result": True},
    "pickle": {"serializer": "pickle"},
    "gzip": {"compression": "gzip"},
    "retries": {"retries": 2},
    "no-retry": {"retry": False},
    "retry-policy": {"retry_policy": {"max_retries": 1}},
    "transient": {"delivery_mode": 1},
    "property": {"app_id": "shop"},
    "mandatory": {"mandatory": True},
}
CALLS = [
    Arguments(1),
    Arguments("it's", second=[1, {"a": None}]),
    Arguments("x" * 3_000, second="y" * 3_000),
    Arguments(("tuple", 2.5), True),
    Arguments(datetime(2030, 1, 1), b"bytes"),
    Arguments(),
]
#: What goes out one by one, for it is more than a template knows.
SINGLE = {"headers-of-celery", "ids", "property"}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(f"module_{request.param}_broker")
    return found


@pytest.fixture
def project(broker: Broker, celery_project: MakeProject) -> Project:
    return celery_project(SOURCE, broker=broker)


class Near:
    """A time in seconds, equal to another one of the same minute."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self.seconds - other.seconds) < 30

    __hash__ = None  # type: ignore[assignment]  # as of all that only nearly equals

    def __repr__(self) -> str:
        return f"Near({self.seconds})"


class Told(logging.Handler):
    """Whether anything was published one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    logger = logging.getLogger("celery_concurrent.bulk.publisher")
    told, level = Told(), logger.level
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        yield told.lines
    finally:
        logger.removeHandler(told)
        logger.setLevel(level)


def messages(project: Project, queue: str) -> list[dict[str, Any]]:
    """All that waits in a queue, decoded, less what differs between two equal calls."""
    with project.app.connection_for_write() as connection:
        channel = connection.default_channel
        found = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(_fields(channel.message_to_python(message)))
    return found


def _fields(message: Any) -> dict[str, Any]:
    message.accept = {message.content_type}
    headers, properties = dict(message.headers), dict(message.properties)
    body = message.decode()
    input_id = properties.pop("correlation_id")
    properties.pop("delivery_tag", None)
    properties.pop("application_headers", None)
    info = dict(message.delivery_info)
    for name in ("delivery_tag", "message_count"):
        info.pop(name, None)
    for place in (headers, body if isinstance(body, dict) else {}):
        for name in ("id", "root_id"):
            if place.get(name) == input_id:
                place[name] = "its own"
        for name in ("eta", "expires"):
            if place.get(name):
                place[name] = Near(datetime.fromisoformat(place[name]).timestamp())
    if "concurrent_sent_at" in headers:
        headers["concurrent_sent_at"] = Near(headers["concurrent_sent_at"])
    if "expiration" in properties:
        properties["expiration"] = Near(int(properties["expiration"]) / 1_000)
    return {
        "headers": headers,
        "properties": properties,
        "info": info,
        "body": body,
        "content": (message.content_type, message.content_encoding),
        "length": len(message.body) if not message.headers.get("compression") else 0,
    }


def check_same(
    project: Project, name: str, calls: list[Arguments], /, destination: str, **options: Any
) -> list[str]:
    """Publish in both ways, and compare; what was said of inputs that went one by one."""
    task = getattr(project.tasks, name)
    for call in calls:
        task.apply_async(call.args, call.kwargs, **options)
    expected = messages(project, destination)
    assert len(expected) == len(calls)
    with listening() as told:
        handles = task_map(task, calls, **options).publish()
    assert len({handle.id for handle in handles}) == len(calls)
    assert {handle.ignored for handle in handles} == {
        options.get("ignore_result", task.ignore_result)
    }
    assert messages(project, destination) == expected
    return told


def _queue(options: dict[str, Any]) -> str:
    return str(options.get("queue", "celery"))


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_call(project: Project, name: str) -> None:
    options = OPTIONS[name]
    calls = [call for call in CALLS if call.args]
    told = check_same(project, "plain", calls, _queue(options), **options)
    assert bool(told) == (name in SINGLE), told


def test_options_of_a_task(project: Project) -> None:
    pytest.importorskip("yaml")
    calls = [Arguments(1), Arguments("a", second=[2])]
    assert check_same(project, "particular", calls, "busy") == []
    assert check_same(project, "particular", calls, "busy", serializer="json", expires=5) == []


def test_calls_without_arguments_and_without_typing(project: Project) -> None:
    assert check_same(project, "untyped", [Arguments(), Arguments(1)], "celery") == []


@pytest.mark.parametrize(
    "values",
    [
        {"task_protocol": 1},
        {"task_serializer": "pickle", "accept_content": ["pickle", "json"]},
        {"task_compression": "gzip"},
        {"task_default_delivery_mode": 1},
        {"task_default_priority": 5},
        {"enable_utc": False, "timezone": "Europe/Berlin"},
        {"task_repr_maxlevels": 1},
    ],
    ids=lambda values: next(iter(values)),
)
def test_settings(project: Project, values: dict[str, Any]) -> None:
    project.app.conf.update(values)
    for options in ({}, {"countdown": 5, "expires": 50, "headers": {"x": 1}}):
        assert check_same(project, "plain", CALLS[:4], "celery", **options) == []


def test_routes_by_name(project: Project) -> None:
    project.app.conf.task_routes = {"*.plain": {"queue": "routed", "priority": 4}}
    assert check_same(project, "plain", CALLS[:3], "routed") == []


def test_a_queue_per_task(project: Project) -> None:
    project.app.conf.task_routes = ["celery_concurrent.routing.queue_per_task"]
    assert check_same(project, "limited", CALLS[:3], f"{project.name}.limited") == []
    assert check_same(project, "plain", CALLS[:3], "celery") == []


def test_a_router_that_looks_at_arguments(project: Project) -> None:
    def by_argument(name: str, args: Any, *_: Any, **__: Any) -> dict[str, str]:
        return {"queue": f"number-{args[0]}"}

    project.app.conf.task_routes = [by_argument]
    with listening() as told:
        task_map(project.tasks.plain, [1, 2]).publish()
    assert len(told) == 1
    assert "by_argument" in told[0]
    assert [len(messages(project, f"number-{number}")) for number in (1, 2)] == [1, 1]


def test_a_receiver_of_before_task_publish_sees_and_changes_each_message(
    project: Project,
) -> None:
    seen = []

    def change(headers: Any = None, **_: Any) -> None:
        seen.append(headers["id"])
        headers["number"] = len(seen)

    signals.before_task_publish.connect(change)
    try:
        handles = task_map(project.tasks.plain, range(3)).publish()
    finally:
        signals.before_task_publish.disconnect(change)
    assert seen == [handle.id for handle in handles]
    found = messages(project, "celery")
    assert [message["headers"]["number"] for message in found] == [1, 2, 3]


def test_receivers_of_after_task_publish_and_events_hear_of_each(
    project: Project,
) -> None:
    seen = []

    def hear(headers: Any = None, **_: Any) -> None:
        seen.append(headers["id"])

    signals.after_task_publish.connect(hear)
    try:
        handles = task_map(project.tasks.plain, range(3)).publish()
    finally:
        signals.after_task_publish.disconnect(hear)
    assert seen == [handle.id for handle in handles]
    project.app.conf.task_send_sent_event = True
    with watching(project) as events:
        handles = task_map(project.tasks.plain, range(3)).publish()
        for handle in handles:
            events.wait(handle.id, "task-sent")
    messages(project, "celery")


def test_what_overrides_celerys_own_is_called_for_each_input(project: Project) -> None:
    calls = []

    class Own(project.app.Task):  # type: ignore[name-defined]  # the app's base class
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            calls.append(args)
            return super().apply_async(args, kwargs, **options)

    def single(number: int) -> int:
        return number

    task = project.app.task(name="own", base=Own)(single)
    task_map(task, range(3)).publish()
    assert calls == [(0,), (1,), (2,)]
    calls.clear()
    send_task = project.app.send_task

    def count(*args: Any, **options: Any) -> Any:
        calls.append(args[1])
        return send_task(*args, **options)

    project.app.send_task = count
    try:
        task_map(project.tasks.plain, range(2)).publish()
    finally:
        del project.app.send_task
    assert calls == [(0,), (1,)]
    sender = project.app.amqp.send_task_message

    def sent(producer: Any, name: str, message: Any, **options: Any) -> Any:
        calls.append(message.body[0])
        return sender(producer, name, message, **options)

    calls.clear()
    project.app.amqp.send_task_message = sent
    try:
        task_map(project.tasks.plain, range(2)).publish()
    finally:
        project.app.amqp.send_task_message = sender
    assert calls == [(0,), (1,)]
    messages(project, "celery")


def test_inside_of_a_task(project: Project, celery_node: StartNode) -> None:
    celery_node(project, "-Q", "parents")
    for name in ("parent", "async_parent", "blocking_parent"):
        parent = getattr(project.tasks, name).delay()
        parent.get(timeout=30)
        single, mapped = messages(project, "sink")
        # The reply queue is the publishing thread's, which in an async input is another one.
        for message in (single, mapped):
            message["properties"].pop("reply_to")
        assert mapped == single
        assert mapped["headers"]["parent_id"] == mapped["headers"]["root_id"] == parent.id
        assert len(parent.children) == 2
