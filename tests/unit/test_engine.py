"""When an input that has a slot is not started after all."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.runners import Run
from tests.services.inputs import engine_of_one_slot, make_input


@dataclass
class Noting:
    """Runs nothing, and knows what it was to run."""

    started: list[str] = field(default_factory=list)

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        self.started.append(input.id)

    run_async = run_sync


@dataclass
class Lease:
    """One that is as it is told to be."""

    is_fresh: bool = True

    def confirm(self) -> bool:
        return self.is_fresh


@dataclass
class Parts:
    """An engine of one slot, and what it was built of."""

    engine: Engine
    runners: Noting
    back: list[Any]

    def take(self, id: str, **given: Any) -> Input:
        request = SimpleNamespace(
            id=id,
            task_id=id,
            message=f"message of {id}",
            acknowledged=False,
            task=SimpleNamespace(acks_late=True),
            delivery_info={},
            eta=None,
            request_dict={},
            on_accepted=lambda *_: None,
            revoked=lambda: False,
        )
        vars(request).update(given)
        input = make_input(id, request)
        self.engine.take(request, lambda: input)
        return input


@pytest.fixture
def parts() -> Iterator[Parts]:
    runners = Noting()
    back: list[Any] = []
    with engine_of_one_slot(runners) as (engine, _):
        engine.give_back = back.extend
        yield Parts(engine, runners, back)


def end(parts: Parts, input: Input) -> None:
    """Its slot comes back."""
    parts.engine.start(parts.engine._release(input))


def test_what_waits_starts_when_a_slot_comes_back(parts: Parts) -> None:
    first = parts.take("1")
    parts.take("2")
    assert parts.runners.started == ["1"]
    end(parts, first)
    assert parts.runners.started == ["1", "2"]


def test_what_waits_goes_back_when_the_lease_may_be_lost(parts: Parts) -> None:
    lease = Lease()
    parts.engine.hold = lambda: lease
    first = parts.take("1")
    parts.take("2")
    lease.is_fresh = False
    end(parts, first)
    assert parts.runners.started == ["1"]
    assert parts.back == ["message of 2"]
    assert parts.engine.slots.running == 0
    assert parts.engine.held == []


@pytest.mark.parametrize("word", ["should_stop", "should_terminate"])
@pytest.mark.parametrize(("value", "starts"), [(None, 1), (False, 1), (0, 0), (1, 0), (True, 0)])
def test_what_waits_does_not_start_in_a_worker_that_is_to_stop(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, word: str, value: Any, starts: int
) -> None:
    first = parts.take("1")
    parts.take("2")
    monkeypatch.setattr(state, word, value)
    end(parts, first)
    assert parts.runners.started[1:] == ["2"] * starts
    assert parts.engine.slots.running == starts


def test_what_waits_can_be_sent_back_at_once(parts: Parts) -> None:
    first = parts.take("1")
    for id in ("2", "3"):
        parts.take(id)
    parts.engine.refuse()
    parts.engine.send_back(parts.engine.forget_waiting())
    assert parts.back == ["message of 2", "message of 3"]
    end(parts, first)
    assert parts.runners.started == ["1"]


def test_the_last_in_line_go_back_but_for_what_was_due_and_what_cannot(parts: Parts) -> None:
    first = parts.take("1")
    parts.take("2")
    parts.take("due", eta="some time ago")
    parts.take("again", delivery_info={"redelivered": True})
    parts.take("gone")
    parts.take("3")
    may = "message of gone".__ne__
    assert parts.engine.send_ahead_back("task", 2, may) == 2
    assert parts.back == ["message of again", "message of 3"]
    assert [input.id for input in parts.engine.held] == ["1", "2", "due", "gone"]
    assert parts.engine.send_ahead_back("task", 9, may) == 1
    assert parts.engine.send_ahead_back("task", 9, may) == 0
    end(parts, first)
    assert parts.runners.started == ["1", "due"]


def test_it_is_told_that_an_input_has_to_wait(parts: Parts) -> None:
    told: list[str] = []
    parts.engine.on_wait = lambda: told.append("waits")
    parts.take("1")
    assert told == []
    parts.take("2")
    assert told == ["waits"]
