"""What other threads tell the settling thread: in order, at once, and once each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from celery_concurrent.pool.inbox import Inbox
from tests.services.waiting import wait_for


class Hub:
    """Collects what it is asked to call, as kombu's does."""

    def __init__(self) -> None:
        self.asked: deque[Callable[[], Any]] = deque()

    def call_soon(self, call: Callable[[], Any]) -> None:
        self.asked.append(call)

    def turn(self) -> None:
        for _ in range(len(self.asked)):
            self.asked.popleft()()


def test_calls_are_made_in_order() -> None:
    inbox = Inbox()
    told: list[Any] = []
    for number in range(100):
        inbox.post(partial(told.append, number))
    assert inbox.drain()
    assert told == list(range(100))
    assert not inbox.drain()


def test_a_hub_is_asked_once_for_many_posts() -> None:
    inbox, hub = Inbox(), Hub()
    told: list[Any] = []
    inbox.attach(hub)
    for number in range(10):
        inbox.post(partial(told.append, number))
    assert len(hub.asked) == 1
    hub.turn()
    assert told == list(range(10))
    inbox.post(lambda: told.append(10))
    hub.turn()
    assert told[-1] == 10


def test_what_was_posted_before_a_hub_came_wakes_it() -> None:
    inbox, hub = Inbox(), Hub()
    told: list[Any] = []
    inbox.post(lambda: told.append(1))
    inbox.attach(hub)
    hub.turn()
    assert told == [1]


def test_a_new_hub_is_asked_though_the_old_one_never_answered() -> None:
    inbox, hub = Inbox(), Hub()
    told: list[Any] = []
    inbox.attach(Hub())
    inbox.post(lambda: told.append(1))
    inbox.attach(hub)
    hub.turn()
    assert told == [1]


def test_what_a_call_posts_is_made_in_the_same_turn() -> None:
    inbox = Inbox()
    told: list[Any] = []

    def first() -> None:
        inbox.post(lambda: told.append("second"))
        told.append("first")

    inbox.post(first)
    inbox.drain()
    assert told == ["first", "second"]


def test_a_nested_drain_makes_each_call_once_and_in_order() -> None:
    """A signal handler, or a service's exit, may drain while its thread is draining."""
    inbox = Inbox()
    told: list[Any] = []

    def first() -> None:
        told.append(1)
        inbox.drain()
        told.append(4)

    inbox.post(first)
    inbox.post(lambda: told.append(2))
    inbox.post(lambda: told.append(3))
    inbox.drain()
    assert told == [1, 2, 3, 4]


def test_an_error_keeps_no_other_call_from_being_made(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()
    told: list[Any] = []

    def fail() -> None:
        raise KeyError("boom")

    inbox.post(fail)
    inbox.post(lambda: told.append(1))
    inbox.drain()
    assert told == [1]
    assert "boom" in caplog.text


def test_after_each_turn_with_calls_the_hook_is_called() -> None:
    inbox = Inbox()
    told: list[Any] = []
    inbox.after_drain = lambda: told.append("flushed")
    inbox.drain()
    inbox.post(lambda: told.append("one"))
    inbox.post(lambda: told.append("two"))
    inbox.drain()
    assert told == ["one", "two", "flushed"]


def test_a_drain_that_waits_is_woken_by_a_post() -> None:
    inbox = Inbox()
    told: list[Any] = []
    drained = threading.Thread(target=lambda: told.append(inbox.drain(timeout=30.0)))
    drained.start()
    wait_for(lambda: inbox._waiting)
    inbox.post(lambda: told.append("call"))
    drained.join(5.0)
    assert told == ["call", True]


def test_a_thread_of_its_own_serves_many_posters_in_the_order_of_each() -> None:
    inbox = Inbox()
    told: list[tuple[str, int]] = []
    threads: set[int] = set()
    inbox.start_thread()

    def call(name: str, number: int) -> None:
        threads.add(threading.get_ident())
        assert inbox.is_here
        told.append((name, number))

    def post(name: str) -> None:
        for number in range(500):
            inbox.post(partial(call, name, number))

    posters = [threading.Thread(target=post, args=(f"p{n}",)) for n in range(4)]
    for poster in posters:
        poster.start()
    for poster in posters:
        poster.join()
    wait_for(lambda: len(told) == 2_000)
    inbox.close()
    for poster_name in ("p0", "p1", "p2", "p3"):
        assert [number for name, number in told if name == poster_name] == list(range(500))
    assert len(threads) == 1
    assert not inbox.is_here


def test_settling_goes_on_when_what_follows_it_fails() -> None:
    """Without a hub a thread of the inbox's own settles, and nobody would start another."""
    inbox = Inbox()
    failed, settled = threading.Event(), threading.Event()

    def fail() -> None:
        failed.set()
        raise ValueError("I/O operation on closed file")

    inbox.after_drain = fail
    inbox.start_thread()
    inbox.post(lambda: None)
    assert failed.wait(10)
    inbox.post(settled.set)
    assert settled.wait(10)
    inbox.close()
