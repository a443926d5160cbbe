"""Input that cannot work ends with Celery's own error, and the node serves on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery.exceptions import NotRegistered
from celery.result import AsyncResult

from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Project
from tests.services.waiting import wait_for
from tests.services.witness import backlog, outcome, unacked

SOURCE = """
import asyncio
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__

class Unspeakable(Exception):
    def __repr__(self):
        raise ValueError("no words")
    __str__ = __repr__

class UnspeakableExit(BaseException):
    __str__ = __repr__ = Unspeakable.__repr__

class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(lambda: (one, two))

ERRORS = {
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "Ignore": Ignore,
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": lambda: MemoryError("no room"),
    "RecursionError": RecursionError,
    "Reject": lambda: Reject("not mine", requeue=False),
    "StopIteration": StopIteration,
    "SystemExit": lambda: SystemExit(3),
    "Unpicklable": lambda: Unpicklable(1, 2),
    "Unspeakable": Unspeakable,
    "UnspeakableExit": UnspeakableExit,
}

def task(function):
    return app.task(concurrent(max_inputs=2)(function))

@task
def raises(name):
    raise ERRORS[name]()

@task
async def raises_async(name):
    await asyncio.sleep(0)
    raise ERRORS[name]()

@task
async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(5)

@app.task(bind=True, max_retries=1)
@concurrent(max_inputs=2)
def has_room_at_last(self):
    if not self.request.retries:
        raise self.retry(exc=MemoryError("no room"), countdown=0)
    return "room"

@task
def returns_object():
    return object()

@task
async def returns_object_async():
    return object()

@task
def returns_coroutine():
    return cancels_itself.run()

@task
def add(x, y):
    return x + y

@task
async def add_async(x, y):
    return x + y
"""

#: What is raised; and what is stored in its place, where that is no Exception.
RAISED = [
    *("CancelledError", "GeneratorExit", "KeyboardInterrupt", "MemoryError", "RecursionError"),
    *("Reject", "StopIteration", "SystemExit", "Unpicklable", "Unspeakable"),
    "UnspeakableExit",
]
CRASHES = ("CancelledError", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "UnspeakableExit")
STORED = {
    "Unpicklable": "UnpickleableExceptionWrapper",
    **dict.fromkeys(CRASHES, "InputCrashError"),
}
UNREADABLE = [b"{not json", b"\xff\xfe", b"", b"[[1, 2]"]
MISSHAPEN = [
    *(b"null", b"7", b'"text"', b"[]", b"[1]", b"[[1, 2], {}]"),
    *(b"[1, 2, 3]", b"[[1, 2], [], {}]", b"[{}, {}, {}]", b"[[1, 2], {}, 3]"),
]


#: In the place of a header: it is not sent.
MISSING = "(missing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A node and its project."""

    project: Project
    node: Node

    def call(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        """Publish by name, as one does who has no part of the task's code."""
        return self.project.app.send_task(f"{self.project.name}.{name}", args, kwargs)

    def publish_raw(
        self, body: bytes, content_type: str = "application/json", **headers: Any
    ) -> str:
        """Publish a body with the headers of a call of ``add``; returns the input's id."""
        project, id = self.project, str(uuid.uuid4())
        own = {"task": f"{project.name}.add", "id": id, "root_id": id, "lang": "py"}
        with project.app.producer_pool.acquire() as producer:
            producer.publish(
                body,
                routing_key=project.name,
                exchange="",
                content_type=content_type,
                content_encoding="utf-8",
                correlation_id=id,
                headers={k: v for k, v in {**own, **headers}.items() if v is not MISSING},
            )
        return id

    def dropped(self) -> int:
        """How many messages the node has said to have dropped."""
        log = self.node.log()
        return log.count("Can't decode message body") + log.count("The message has been ignored")

    def serves_on(self) -> None:
        """Both slots of both kinds still work, and nothing is left unacknowledged."""
        results = [self.call(name, 2, 3) for name in ("add", "add_async") * 4]
        assert [outcome(result) for result in results] == [5] * 8
        if self.project.broker.kind == "redis":
            wait_for(lambda: unacked(self.project) == 0, what="all acknowledgements")
        assert self.node.running


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ],
)
def bench(
    request: pytest.FixtureRequest, module_project: MakeProject, module_node: StartNode
) -> Iterator[Bench]:
    broker = request.getfixturevalue(f"module_{request.param}_broker")
    project = module_project(SOURCE, broker=broker)
    node = module_node(project)
    yield Bench(project=project, node=node)
    # What it has not acknowledged by its end comes back now.
    node.stop()
    assert backlog(project, project.name) == 0


def test_what_ran_out_of_memory_is_tried_again_where_its_task_says_so(bench: Bench) -> None:
    assert bench.call("has_room_at_last").get(timeout=10) == "room"


@pytest.mark.parametrize("function", ["raises", "raises_async"])
@pytest.mark.parametrize("name", RAISED)
def test_whatever_an_input_raises_it_fails_alone(bench: Bench, function: str, name: str) -> None:
    if (function, name) == ("raises_async", "StopIteration"):
        pytest.skip("Python makes a RuntimeError of it")
    result = bench.call(function, name)
    error = outcome(result)
    assert result.state == "FAILURE"
    assert type(error).__name__ == STORED.get(name, name)
    bench.serves_on()


@pytest.mark.parametrize("function", ["raises", "raises_async"])
def test_an_input_that_is_ignored_leaves_the_queue_without_a_result(
    bench: Bench, function: str
) -> None:
    result = bench.call(function, "Ignore")
    bench.serves_on()
    assert result.state == "PENDING"


def test_an_input_that_cancels_itself_fails(bench: Bench) -> None:
    result = bench.call("cancels_itself")
    assert "CancelledError" in repr(outcome(result))
    assert result.state == "FAILURE"
    bench.serves_on()


@pytest.mark.parametrize("name", ["returns_object", "returns_object_async", "returns_coroutine"])
def test_a_result_that_cannot_be_serialised_fails_the_input(bench: Bench, name: str) -> None:
    result = bench.call(name)
    assert type(outcome(result)).__name__ == "EncodeError"
    assert result.state == "FAILURE"
    bench.serves_on()


@pytest.mark.parametrize("name", ["add", "add_async"])
@pytest.mark.parametrize(("args", "kwargs"), [((1,), {}), ((1, 2, 3), {}), ((1,), {"z": 1})])
def test_wrong_arguments_fail_the_input(
    bench: Bench, name: str, args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    result = bench.call(name, *args, **kwargs)
    assert isinstance(outcome(result), TypeError)
    assert result.state == "FAILURE"
    bench.serves_on()


def test_an_input_of_an_unknown_task_fails(bench: Bench) -> None:
    result = bench.call("nobody_wrote_it")
    assert isinstance(outcome(result), NotRegistered)
    assert result.state == "FAILURE"
    bench.serves_on()


@pytest.mark.parametrize("body", UNREADABLE + MISSHAPEN)
def test_a_body_that_cannot_be_read_is_logged_and_dropped(bench: Bench, body: bytes) -> None:
    seen = bench.dropped()
    bench.publish_raw(body)
    wait_for(lambda: bench.dropped() == seen + 1)
    bench.serves_on()


@pytest.mark.parametrize(
    "content_type", ["application/x-unheard-of", "application/x-python-serialize"]
)
def test_a_body_of_a_type_that_is_not_accepted_is_logged_and_dropped(
    bench: Bench, content_type: str
) -> None:
    seen = bench.dropped()
    bench.publish_raw(b"[[1, 2], {}, {}]", content_type)
    wait_for(lambda: bench.dropped() == seen + 1)
    bench.serves_on()


@pytest.mark.parametrize(
    "headers",
    [
        {"id": None},
        {"id": MISSING},
        {"task": MISSING},
        {"lang": MISSING, "root_id": MISSING},
        {"timelimit": 7},
        {"eta": "tomorrow"},
        {"expires": "yesterday"},
        {"retries": "many"},
        {"task": None},
        {"task": ["add"]},
    ],
    ids=str,
)
def test_an_input_with_headers_of_another_form_does_not_end_the_node(
    bench: Bench, headers: dict[str, Any]
) -> None:
    bench.publish_raw(b"[[1, 2], {}, {}]", **headers)
    bench.serves_on()


@pytest.mark.batching
def test_what_is_no_message_in_the_queues_list_is_logged_and_dropped(bench: Bench) -> None:
    if bench.project.broker.kind != "redis":
        pytest.skip("only Redis takes anything")
    garbage = [b"no json", b"[]", b"{}", b'{"properties": {}}', b"\xff", b"", b"7"]
    with redis.Redis.from_url(bench.project.broker.url) as client:
        client.lpush(bench.project.name, *garbage)
    wait_for(lambda: bench.node.log().count("what is no message") == len(garbage))
    bench.serves_on()
