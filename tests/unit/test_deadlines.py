"""Calls at given times, on a clock of the test's own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from celery_concurrent.pool.deadlines import Deadlines
from tests.services.waiting import wait_for


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def deadlines() -> Iterator[Any]:
    made: list[Deadlines] = []

    def make(*args: Any) -> Deadlines:
        made.append(Deadlines(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_calls_are_made_in_the_order_of_their_times(deadlines: Any) -> None:
    clock, told = Clock(), list[str]()
    mine = deadlines(clock)
    for delay, name in ((40.0, "third"), (10.0, "first"), (20.0, "second")):
        mine.after(delay, partial(told.append, name))
    clock.now += 60.0
    mine.after(-1.0, partial(told.append, "last"))  # a sooner one makes the thread look
    wait_for(lambda: len(told) == 4)
    assert told == ["first", "second", "third", "last"]


def test_nothing_is_called_before_its_time(deadlines: Any) -> None:
    clock, told = Clock(), []
    mine = deadlines(clock)
    mine.after(60.0, lambda: told.append("late"))
    mine.after(0.0, lambda: told.append("now"))
    wait_for(lambda: told)
    assert told == ["now"]
    clock.now += 60.0
    mine.after(-1.0, lambda: told.append("again"))  # a sooner one makes the thread look
    wait_for(lambda: "late" in told)
    assert sorted(told) == ["again", "late", "now"]


def test_a_sooner_deadline_wakes_the_thread(deadlines: Any) -> None:
    called = threading.Event()
    mine = deadlines()
    mine.after(60.0, lambda: None)
    mine.after(0.01, called.set)
    assert called.wait(5.0)


def test_a_cancelled_deadline_is_not_called(deadlines: Any) -> None:
    clock, told = Clock(), []
    mine = deadlines(clock)
    first = mine.after(1.0, lambda: told.append("cancelled"))
    first.cancel()
    first.cancel()
    clock.now += 1.0
    mine.after(0.0, lambda: told.append("kept"))
    wait_for(lambda: told)
    assert told == ["kept"]


def test_an_error_in_a_call_is_logged_and_the_next_is_made(
    deadlines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()

    def fail() -> None:
        raise KeyError("boom")

    mine = deadlines()
    mine.after(0.0, fail)
    mine.after(0.01, called.set)
    assert called.wait(5.0)
    assert "a deadline's callback failed" in caplog.text
    assert "boom" in caplog.text


def test_deadlines_that_were_cancelled_do_not_pile_up(deadlines: Any) -> None:
    """Inputs end long before their limits, and must not be kept until then."""

    class Payload: ...

    mine = deadlines()
    mine.after(60.0, lambda: None)  # the thread sleeps until then
    payload = Payload()
    gone = weakref.ref(payload)
    kept = mine.after(3_600.0, partial(repr, payload))
    kept.cancel()
    del payload
    assert gone() is None
    for _ in range(10_000):
        mine.after(3_600.0, lambda: None).cancel()
    assert len(mine._heap) <= 1_001


def test_many_live_deadlines_are_all_kept(deadlines: Any) -> None:
    told: list[int] = []
    mine = deadlines()
    for number in range(3_000):
        mine.after(0.2, partial(told.append, number))
        mine.after(0.2, lambda: told.append(-1)).cancel()
    wait_for(lambda: len(told) == 3_000)
    assert told == list(range(3_000))


def test_after_closing_nobody_is_called(deadlines: Any) -> None:
    clock, told = Clock(), []
    mine = deadlines(clock)
    mine.after(1.0, lambda: told.append("late"))
    thread = mine._thread
    assert thread is not None
    mine.close()
    mine.close()
    clock.now += 1.0
    thread.join(5.0)
    assert not thread.is_alive()
    assert told == []


def test_without_deadlines_there_is_no_thread(deadlines: Any) -> None:
    assert deadlines()._thread is None


def test_a_signal_handler_may_set_one_in_the_midst_of_a_call(deadlines: Any) -> None:
    """As Celery's does in a cold stop, on the thread that it interrupts."""
    left = [1]

    def interrupted() -> float:  # asked within the lock
        if left:
            left.pop()
            mine.after(60.0, lambda: None)
        return 100.0

    mine = deadlines(interrupted)
    calling = threading.Thread(target=mine.after, args=(60.0, lambda: None), daemon=True)
    calling.start()
    calling.join(10)
    assert not calling.is_alive()
    assert len(mine._heap) == 2
