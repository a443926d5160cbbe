"""What an autoscaler announces, and when."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from celery_concurrent.autoscaler.announcing import LONGEST, Announcer
from celery_concurrent.board.words import AUTOSCALER, FLEET


class World:
    """A desk, a broker and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fleet: dict[str, Any] = {"queue": "q", "demand": 1, "reason": "", "nodes": []}
        self.is_away = False
        self.connections = 0
        self.sent: list[str] = []
        self.noted: list[str] = []
        self.ages: list[float] = []
        self.announcer = Announcer(self, self.connect, self.note, clock=lambda: self.now)

    def later(self) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        future.set_result(
            {"autoscaler": {"host": "h", "pid": 1}, "fleets": [dict(self.fleet)], "devices": []}
        )
        return future

    def connect(self) -> World:
        if self.is_away:
            raise ConnectionError("away")
        self.connections += 1
        return self

    def send(self, kind: str, fields: Mapping[str, Any]) -> None:
        if self.is_away:
            raise ConnectionError("away")
        assert not {"type", "hostname", "pid"} & fields.keys()
        self.sent.append(kind)

    def close(self) -> None: ...

    def note(self, event: Mapping[str, Any]) -> None:
        self.noted.append(event["type"])
        if event["type"] == FLEET:
            self.ages.append(event["age"])

    def said(self, **changes: Any) -> list[str]:
        """What is sent when another second has passed, with these figures of the fleet changed."""
        self.now += 1
        self.fleet.update(changes)
        self.sent.clear()
        self.announcer.announce()
        return list(self.sent)


@pytest.fixture
def world() -> World:
    return World()


def test_a_fleet_is_told_when_it_changes(world: World) -> None:
    assert world.said() == [AUTOSCALER, FLEET]
    assert world.said() == []
    assert world.said(demand=2) == [FLEET]
    assert world.said(nodes=[{"name": "n", "seconds": 1.0}]) == [FLEET]


def test_what_passes_by_itself_is_no_change(world: World) -> None:
    world.said(nodes=[{"name": "n", "seconds": 1.0}])
    assert world.said(nodes=[{"name": "n", "seconds": 2.0}], reason="held for 3 s") == []


def test_all_is_told_now_and_then(world: World) -> None:
    world.said()
    told = [world.said() for _ in range(int(LONGEST))]
    assert told[:-1] == [[]] * (len(told) - 1)
    assert told[-1] == [AUTOSCALER, FLEET]


def test_a_fleet_is_told_with_the_age_of_its_autoscaler(world: World) -> None:
    world.said()
    assert world.said(nodes=[]) == []  # which is no change
    world.said(demand=2)
    assert world.ages == [1.0, 3.0]


def test_a_broker_that_is_away_hides_nothing_in_this_process(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.said()
    world.is_away = True
    for demand in (5, 6, 7):
        assert world.said(demand=demand) == []
    # Everything each time: nobody has heard of it.
    assert world.noted[2:] == [FLEET, *[AUTOSCALER, FLEET] * 2]
    world.is_away = False
    assert world.said() == [AUTOSCALER, FLEET]
    assert world.connections == 2
    assert [record.message for record in caplog.records] == [
        "fleets cannot be announced (ConnectionError): trying every second"
    ]
