"""Events on their way through Flower."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from celery_concurrent.board import Board
from celery_concurrent.flower.listening import listen
from celery_concurrent.metrics.tally import Tally
from celery_concurrent.pool.timing import BUCKETS

#: In each of two hours; an hour of 1,000 events a second has 3,600,000.
EVENTS = int(os.environ.get("CELERY_CONCURRENT_MEMORY_EVENTS", "12000"))
NODES = 37
QUEUES = 4


class Loop:
    """Runs at once what Flower's loop would run soon."""

    def add_callback(self, callback: Callable[..., None], *arguments: Any) -> None:
        callback(*arguments)


def listening(*notes: Callable[[dict[str, Any]], None]) -> tuple[Any, list[Any]]:
    """The events' handler and what Flower itself has got of them."""
    flowers: list[Any] = []
    flower = SimpleNamespace(io_loop=Loop(), events=SimpleNamespace(on_event=flowers.append))
    listen(flower, *notes)
    return flower.events.on_event, flowers


def test_our_events_reach_flower_and_us_and_others_flower_alone() -> None:
    heard: list[Any] = []
    on_event, flowers = listening(heard.append, heard.append)
    ours = {"type": "concurrency-node", "hostname": "a@h"}
    others = [{"type": "task-sent", "uuid": "1"}, {"type": "worker-heartbeat"}, {"type": None}, {}]
    for event in (ours, *others):
        on_event(event)
    assert flowers == [ours, *others]
    assert heard == [ours, ours]


def test_an_event_that_cannot_be_read_is_told_once_and_keeps_nobody_from_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Any] = []

    def fail(event: dict[str, Any]) -> None:
        raise KeyError("odd")

    on_event, flowers = listening(fail, heard.append)
    for _ in range(3):
        on_event({"type": "concurrency-odd"})
    assert len(heard) == len(flowers) == 3
    [record] = caplog.records
    assert "'concurrency-odd'" in record.getMessage()


@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_an_hour_of_events() -> None:
    """Nodes come and go, as in a fleet that follows its demand; time runs with the events.

    ``CELERY_CONCURRENT_MEMORY_EVENTS=3600000`` makes it a thousand a second, in 20 minutes.
    """
    now = [0.0]
    board = Board(clock=lambda: now[0], wall=lambda: now[0])
    tally = Tally(clock=lambda: now[0])
    on_event, flowers = listening(board.note, tally.note)

    def pass_on(events: Iterable[dict[str, Any]]) -> int:
        for event in events:
            on_event(event)
            flowers.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # What is kept for an hour fills up, and a node is kept for some minutes longer.
        pass_on(hour(now, EVENTS))
        measured = hour(now, EVENTS)
        before = pass_on(islice(measured, EVENTS // 4))
        after = pass_on(measured)
    finally:
        tracemalloc.stop()
    assert len(board.nodes()) >= NODES, "the events have been heard"
    assert after - before < 0.03 * before, f"{before} bytes, {after} most of an hour later"


def hour(now: list[float], count: int) -> Iterator[dict[str, Any]]:
    """So many events in an hour of the clock ``now``: of nodes, of their autoscaler, of anybody."""
    began = now[0]
    for number in range(count):
        now[0] = began + 3600.0 * number / count
        if number % 20 == 1:
            yield fleet_event(f"q{number % QUEUES}", now[0])
        elif number % 20 == 2:
            yield {"type": "concurrency-node", "hostname": f"odd{number}", "state": [number]}
        else:
            yield node_event(number % NODES, now[0])


def node_event(place: int, now: float) -> dict[str, Any]:
    """A node's word; each place has another node every five minutes."""
    life, age = divmod(now, 300.0)
    runs = int(age)
    return {
        "type": "concurrency-node",
        "hostname": f"n{place}-{life:.0f}@host",
        "pid": place,
        "state": "ready" if age < 290 else "draining",
        "state_age": age,
        "age": age,
        "queues": [f"q{place % QUEUES}"],
        "slots": 20,
        "running": 5,
        "cpu": age / 2,
        "tasks": {f"shop.t{place % QUEUES}": {"slots": 20, "running": 5}},
        "last_input": {"id": f"{place}-{now}", "task": "shop.t", "seconds": 1.0},
        "timing": {
            f"shop.t{place % QUEUES}": {
                "wait": [runs] * (len(BUCKETS) + 1),
                "wait_sum": age,
                "run": [runs] * (len(BUCKETS) + 1),
                "run_sum": age,
            }
        },
        "outcomes": {f"shop.t{place % QUEUES}": {"succeeded": runs}},
    }


def fleet_event(queue: str, now: float) -> dict[str, Any]:
    return {
        "type": "concurrency-fleet",
        "hostname": "autoscaler@host",
        "queue": queue,
        "state": "ok",
        "demand": 7,
        "backlog": 2,
        "running": 5,
        "counts": {"ready": 4},
        "decided": {"demand": int(now)},
        "decisions": [
            {"at": now - n, "before": n, "after": n + 1, "reason": f"demand at {now}"}
            for n in range(50)
        ],
        "nodes": [],
    }
