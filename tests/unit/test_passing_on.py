"""A slot that passes to the next in line where an input ends, before its end is settled."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.pool.concurrent import _run_in_turn
from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.inbox import Inbox
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.loop import AsyncInputs
from celery_concurrent.pool.runners import Following, Run
from celery_concurrent.sent import SENT_AT
from tests.services.inputs import engine_of_one_slot, make_input


class Request:
    """What the engine asks of Celery's, and of that a method which it knows."""

    message = "a message"
    acknowledged = False
    task = SimpleNamespace(acks_late=True)
    expires: Any = None
    stamped_headers = ()
    delivery_info: dict[str, Any] = {}  # nobody writes to it
    request_dict: dict[str, Any] = {}
    revoked = CeleryRequest.revoked
    _already_revoked = False

    def maybe_expire(self) -> bool:
        return False

    def __init__(self, id: str, told: list[str], **given: Any) -> None:
        self.id = self.task_id = id
        self._told = told
        vars(self).update(given)

    def on_accepted(self, *_: Any) -> None:
        self._told.append(f"{self.id} runs")

    def on_success(self, _: Any) -> None:
        self._told.append(f"{self.id} has ended")


class Asking(Request):
    """Of a class of the user's that has its own way to refuse."""

    def revoked(self) -> bool:
        return False


class Odd(Request):
    """Of a class of the user's that fails, once."""

    is_asked = False

    @property
    def expires(self) -> Any:
        if self.is_asked:
            return None
        self.is_asked = True
        raise ZeroDivisionError


@dataclass
class Waiting:
    """Keeps what it is to run until a test runs it, on a thread that is no runner."""

    starts: dict[str, Callable[[], Following | None]] = field(default_factory=dict)

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        self.starts[input.id] = partial(context.run, run, input)

    run_async = run_sync


@dataclass
class Node:
    """An engine of one slot, and what its requests were told, in order."""

    engine: Engine
    inbox: Inbox
    runners: Waiting
    told: list[str]

    def take(
        self, id: str, *, kind: type[Request] = Request, is_async: bool = False, **given: Any
    ) -> Input:
        input = make_input(id, kind(id, self.told, **given), is_async=is_async)
        input.target = lambda *_: (0, CURRENT_INPUT.get(), 0.0)
        input.args = ("task", id, {}, b"", "", "")
        self.engine.take(input.request, lambda: input)
        return input

    def run(self, id: str) -> Following | None:
        """Run an input that the engine has handed to its runner."""
        return self.runners.starts.pop(id)()


@pytest.fixture
def node() -> Iterator[Node]:
    runners = Waiting()
    with engine_of_one_slot(runners) as (engine, inbox):
        engine.passing.allow(60.0)
        yield Node(engine, inbox, runners, [])


def test_the_next_in_line_follows_before_the_end_is_settled(node: Node) -> None:
    node.take("1")
    second, third = node.take("2"), node.take("3")
    following = node.run("1")
    assert following is not None
    assert following.input is second
    assert following.context[CURRENT_INPUT] is second
    assert node.engine.running[1:] == [second]
    assert node.engine.slots.running == 1
    assert node.told == ["1 runs"]
    assert node.inbox.drain()
    assert node.told == ["1 runs", "1 has ended", "2 runs"]
    assert node.engine.held == [second, third]


def test_that_it_runs_is_told_before_that_it_has_ended(node: Node) -> None:
    node.take("1")
    node.take("2")
    following = node.run("1")
    assert following is not None
    assert node.engine._work(following.input) is None
    node.inbox.drain()
    assert node.told == ["1 runs", "1 has ended", "2 runs", "2 has ended"]
    assert node.engine.slots.running == node.engine.slots.groups["task"].running == 0
    assert node.engine.slots.finished == 2
    assert node.engine.held == []


@dataclass
class Lease:
    is_fresh: bool

    def confirm(self) -> bool:
        return self.is_fresh


def test_it_runs_under_the_lease_that_holds_it(node: Node) -> None:
    lease = Lease(is_fresh=True)
    node.engine.hold = lambda: lease
    node.take("1")
    second = node.take("2")
    assert node.run("1") is not None
    assert second.hold is lease


def test_its_time_limits_do_not_wait_for_settling(node: Node) -> None:
    node.take("1")
    second = node.take("2")
    second.hard_limit = 60.0
    assert node.run("1") is not None
    assert len(second.deadlines) == 1
    node.inbox.drain()
    assert len(second.deadlines) == 1


def without_connection(node: Node, _: pytest.MonkeyPatch) -> None:
    node.engine.passing.allow(0.0)


def after_a_long_turn(node: Node, _: pytest.MonkeyPatch) -> None:
    node.engine.passing.allow(1e-9)


def with_a_lease_that_may_be_lost(node: Node, _: pytest.MonkeyPatch) -> None:
    node.engine.hold = lambda: Lease(is_fresh=False)


def after_the_stop(node: Node, _: pytest.MonkeyPatch) -> None:
    node.engine.refuse()


def when_a_stop_was_asked_for(_: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", 0)
    monkeypatch.setattr(state, "should_terminate", True)


def during_a_soft_stop(_: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.utils.log._in_sighandler", True)


def after_a_revoke(_: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "revoked", {"2"})


def under_a_lower_limit(node: Node, _: pytest.MonkeyPatch) -> None:
    node.engine.hold = lambda: None
    node.engine.slots.hold({"task": 0})


@pytest.mark.parametrize(
    "meanwhile",
    [
        without_connection,
        after_a_long_turn,
        with_a_lease_that_may_be_lost,
        after_the_stop,
        when_a_stop_was_asked_for,
        during_a_soft_stop,
        after_a_revoke,
        under_a_lower_limit,
    ],
)
def test_a_slot_does_not_pass(
    node: Node, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[..., None]
) -> None:
    node.take("1")
    second = node.take("2")
    meanwhile(node, monkeypatch)
    assert node.run("1") is None
    assert second.started_at is None
    assert node.engine.slots.running == 1  # until the end is settled


@pytest.mark.parametrize(
    "given",
    [
        {"expires": "2030-01-01"},
        {"stamped_headers": ["mine"]},
        {"task": SimpleNamespace(acks_late=False)},
        {"is_async": True},
        {"kind": Asking},
    ],
    ids=["expires", "stamped", "acknowledged early", "of the other kind", "own request class"],
)
def test_what_may_not_follow_starts_when_the_end_is_settled(
    node: Node, given: dict[str, Any]
) -> None:
    node.take("1")
    node.take("2", **given)
    assert node.run("1") is None
    assert not node.runners.starts
    node.inbox.drain()
    assert list(node.runners.starts) == ["2"]
    assert node.told == ["1 runs", "1 has ended", "2 runs"]


def test_a_request_that_cannot_be_asked_starts_when_the_end_is_settled(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.take("1")
    node.take("2", kind=Odd)
    assert node.run("1") is None
    node.inbox.drain()
    assert list(node.runners.starts) == ["2"]
    assert "task[1] starts nothing in its slot" in caplog.text


def test_a_redelivery_that_takes_over_is_told_once(node: Node) -> None:
    """The settling thread meets it before it hears that the input runs."""
    node.take("1")
    second = node.take("2")
    assert node.run("1") is not None
    told: list[str] = []
    again = Request("2", told, delivery_info={"redelivered": True})
    node.engine.take(again, lambda: pytest.fail("it was to be taken over"))
    node.inbox.drain()
    assert second.request is again
    assert told == ["2 runs"]
    assert node.told == ["1 runs", "1 has ended"]


def test_before_the_consumer_looks_at_what_it_has_all_that_began_is_told(node: Node) -> None:
    """What a lost lease takes away, and what Celery cancels with a lost connection."""
    node.take("1")
    second = node.take("2")
    assert node.run("1") is not None
    assert node.engine.passing.begun == 1
    node.engine.passing.allow(0.0)
    assert node.told == ["1 runs", "2 runs"]
    node.engine.drop_held()
    assert node.engine.passing.begun == 0
    assert second.dropped
    node.inbox.drain()
    assert node.told == ["1 runs", "2 runs"]


def test_what_cannot_start_is_left_to_its_queue(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node.take("1")
    node.take("2")

    def fail(_: Input) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(node.engine._time_limits, "start", fail)
    assert node.run("1") is None
    assert "starting task[2] failed: leaving it to its queue" in caplog.text
    node.inbox.drain()
    assert node.engine.slots.running == 0
    assert node.engine.held == []


def test_its_wait_ends_when_it_begins(node: Node) -> None:
    node.take("1")
    second = node.take("2", request_dict={SENT_AT: time.time() - 1_500.0})
    assert node.run("1") is not None
    assert second.started_at is not None
    second.started_at -= 1_000.0  # as if it were told of so much later
    node.inbox.drain()
    told = node.engine.timing.fields()["timing"]["task"]["wait_sum"]
    assert told == pytest.approx(500.0, abs=10.0)


def test_a_thread_runs_what_follows() -> None:
    inputs = [make_input(str(number), None) for number in range(3)]
    ran: list[tuple[str, int]] = []
    line: list[Following] = []

    def run(input: Input) -> Following | None:
        assert line == []
        assert input.interrupter is not None
        ran.append((input.id, threading.get_ident()))
        left = inputs[int(input.id) + 1 :]
        return Following(left[0], Context()) if left else None

    line.append(Following(inputs[0], Context()))
    _run_in_turn(line, run)
    assert ran == [(input.id, threading.get_ident()) for input in inputs]


def test_the_error_of_an_input_keeps_no_other() -> None:
    inputs = [make_input(str(number), Request(str(number), [])) for number in range(3)]
    kept = [weakref.ref(input.request) for input in inputs]
    following = [Following(input, Context()) for input in reversed(inputs)]
    errors: list[BaseException] = []

    def run(input: Input) -> Following | None:
        if input.id == "0":
            try:
                raise ValueError
            except ValueError as error:
                errors.append(error)
        return following.pop() if following else None

    line = [following.pop()]
    del inputs
    _run_in_turn(line, run)
    gc.collect()
    assert errors
    assert [request() is not None for request in kept] == [True, False, False]


def test_the_loop_runs_what_follows_in_a_task_of_its_own() -> None:
    inputs = [make_input(str(number), None, is_async=True) for number in range(3)]
    contexts = [Context() for _ in inputs]
    for input, context in zip(inputs, contexts, strict=True):
        context.run(CURRENT_INPUT.set, input)

    async def main() -> list[Any]:
        on_loop = AsyncInputs(asyncio.get_running_loop())
        ran: list[Any] = []
        ended = asyncio.Event()

        def run(input: Input) -> Following | None:
            task = asyncio.current_task()
            assert task is not None
            ran.append((task.get_name(), CURRENT_INPUT.get()))
            left = inputs[int(input.id) + 1 :]
            if not left:
                ended.set()
                return None
            return Following(left[0], contexts[int(left[0].id)])

        on_loop.start(inputs[0], contexts[0], run)
        await asyncio.sleep(0)
        first = [task for task in asyncio.all_tasks() if task.get_name() == "0"]
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.sleep(0)
        assert not on_loop._tasks
        # A task may be kept by others, and with it its result.
        assert [task.result() for task in first] == [None]
        return ran

    assert asyncio.run(main()) == [(input.id, input) for input in inputs]
