"""What a node tells of itself, and when."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from celery_concurrent import Limits
from celery_concurrent.pool.slots import PLAIN, Figures, Slots
from celery_concurrent.pool.status import NOTE_LENGTH, State, Status
from celery_concurrent.worker.telling import LONGEST, SHORTEST, TYPE, Teller, event_fields
from tests.services.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Held:
    """An input, as far as slots know it."""

    def __init__(self, group: str) -> None:
        self.group = group


def slots(*, cap: int | None = None) -> Slots[Held]:
    limits = {"a": Limits(max_inputs=3, target_inputs=2), "b": Limits(max_inputs=5)}
    return Slots(limits, plain=4, cap=cap, counted=["a"])


# -- the figures


def test_the_figures_are_those_of_the_groups_that_count() -> None:
    own = slots()
    for _ in range(4):
        own.take(Held("a"))
    node, groups = own.figures()
    assert groups == {"a": Figures(slots=3, target=2, running=3, reserved=1)}
    assert node == Figures(slots=3, target=2, running=3, reserved=1)
    assert (own.arrived, own.finished) == (4, 0)


def test_groups_that_hold_inputs_are_told_though_their_queue_is_not_consumed() -> None:
    own = slots()
    own.take(Held(PLAIN))
    node, groups = own.figures()
    assert groups[PLAIN] == Figures(slots=4, target=4, running=1, reserved=0)
    assert node == Figures(slots=3, target=2, running=1, reserved=0)


def test_a_target_is_never_above_the_limit() -> None:
    own = slots(cap=1)
    node, groups = own.figures()
    assert (node.slots, node.target, groups["a"].target) == (1, 1, 1)


def test_each_change_of_the_slots_is_announced() -> None:
    own, held, changes = slots(), Held("a"), []
    own.on_change = lambda: changes.append(own.figures()[0])  # outside of its lock
    own.take(held)
    own.give_back(held)
    own.set_limit("a", 2)
    own.resize(1)
    own.count(["b"])
    own.forget_waiting()
    assert [node.running for node in changes] == [1, 0, 0, 0, 0, 0]
    assert [node.slots for node in changes] == [3, 3, 2, 1, 1, 1]
    assert own.finished == 1


# -- the state


def test_a_state_has_an_age_of_its_own() -> None:
    clock = Clock()
    status = Status(clock)
    clock.now += 5
    status.enters("ready")
    clock.now += 2
    status.enters("ready")
    assert (status.state, status.age, status.state_age) == ("ready", 7, 2)


@pytest.mark.parametrize("state", ["starting", "ready"])
def test_a_node_that_drains_stays_so(state: State) -> None:
    status = Status()
    status.enters("draining")
    status.enters(state)
    assert status.state == "draining"


def test_states_and_notes_are_announced_once() -> None:
    changes: list[str] = []
    status = Status()
    status.on_change = lambda: changes.append(status.state)
    status.enters("starting")
    status.enters("ready")
    status.notes("x" * 1000)
    assert changes == ["ready", "ready"]
    assert status.note == "x" * NOTE_LENGTH


# -- the event


def test_an_event_has_exactly_these_fields() -> None:
    clock = Clock()
    status = Status(clock)
    clock.now += 1.23456
    status.enters("ready")
    clock.now += 1
    status.notes("out of memory: limit lowered to 1")
    status.devices = {"GPU-1": {"free": 3, "total": 8}}
    own = slots()
    for _ in range(4):
        own.take(Held("a"))
    node, groups = own.figures()
    fields = event_fields(
        status=status,
        node=node,
        groups=groups,
        queues=["z", "q"],
        reserved=2,
        scheduled=7,
        arrived=9,
        finished=5,
        device="GPU-1",
        timing={"timing": {}, "outcomes": {}, "last_input": None},
        process={"cpu": 0.5, "rss": 1000},
    )
    assert fields == {
        "state": "ready",
        "state_age": 1.0,
        "age": 2.235,
        "queues": ["q", "z"],
        "slots": 3,
        "target": 2,
        "running": 3,
        "reserved": 2,
        "scheduled": 7,
        "arrived": 9,
        "finished": 5,
        "tasks": {"a": {"slots": 3, "target": 2, "running": 3, "reserved": 1}},
        "device": "GPU-1",
        "devices": {"GPU-1": {"free": 3, "total": 8}},
        "note": "out of memory: limit lowered to 1",
        "timing": {},
        "outcomes": {},
        "last_input": None,
        "cpu": 0.5,
        "rss": 1000,
    }


def test_what_waits_for_a_slot_is_reserved_though_celery_has_forgotten_it() -> None:
    node = Figures(slots=1, target=1, running=1, reserved=3)
    fields = event_fields(
        status=Status(),
        node=node,
        groups={},
        queues=[],
        reserved=-1,
        scheduled=0,
        arrived=0,
        finished=0,
        device=None,
        timing={},
        process={},
    )
    assert fields["reserved"] == 3


# -- when


class Broker:
    """Keeps what is sent; can be away, or refuse."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.connections = self.closed = 0
        self.away = False

    def __call__(self) -> Broker:
        if self.away:
            raise OSError("amqp://user:secret@host")
        self.connections += 1
        return self

    def send(self, kind: str, fields: Mapping[str, Any]) -> None:
        assert kind == TYPE
        if self.away:
            raise OSError("amqp://user:secret@host")
        self.sent.append(dict(fields))

    def close(self) -> None:
        self.closed += 1


class World:
    """A teller with a clock, a broker and a state of the test's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = Broker()
        self.fields: dict[str, Any] = {"running": 0, "age": 0, "finished": 0}
        self.teller = Teller(lambda: dict(self.fields), self.broker, self.clock)

    def pass_by(self, seconds: float) -> None:
        """Time passes, in which the teller looks whenever it wants to."""
        until = self.clock.now + seconds
        looks = 0
        while (due := self.clock.now + max(0.0, self.teller.wait())) <= until:
            self.clock.now = due
            self.teller.look()
            looks += 1
            assert looks < 1000, "it looks without a pause"
        self.clock.now = until

    def change(self, running: int) -> None:
        self.fields["running"] = running
        self.teller.changed()

    @property
    def told(self) -> list[int]:
        return [fields["running"] for fields in self.broker.sent]


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_event_is_told_at_once(world: World) -> None:
    assert world.teller.wait() <= 0
    world.pass_by(0)
    assert world.told == [0]


def test_a_node_without_changes_tells_its_state_each_second(world: World) -> None:
    world.pass_by(10.5)
    assert len(world.broker.sent) == 1 + int(10.5 / LONGEST) >= 11
    assert world.broker.connections == 1


def test_a_change_is_told_at_once(world: World) -> None:
    world.pass_by(0.5)
    world.change(3)
    assert world.teller.wait() <= 0
    world.pass_by(0)
    assert world.told == [0, 3]


def test_many_changes_are_told_ten_times_a_second_with_the_last_one(world: World) -> None:
    for running in range(1, 1001):
        world.change(running)
        world.pass_by(0.001)
    world.pass_by(SHORTEST)
    assert 10 <= len(world.broker.sent) <= 12
    assert world.told[-1] == 1000


def test_what_is_the_same_again_is_not_told_again(world: World) -> None:
    world.pass_by(0.2)
    for _ in range(5):
        world.change(1)
        world.change(0)
        world.fields["finished"] += 1
        world.pass_by(0.1)
    assert world.told == [0]
    world.pass_by(LONGEST)
    assert world.broker.sent[-1]["finished"] == 5


def test_a_lost_broker_is_looked_for_each_second_and_told_all_when_it_is_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.pass_by(0)
    world.broker.away = True
    attempts = []
    world.teller._outlet._connect = lambda: attempts.append(world.clock.now) or world.broker()  # type: ignore[func-returns-value]  # both
    for running in range(1, 51):  # changes do not make it look more often
        world.change(running)
        world.pass_by(0.1)
    assert world.broker.closed == 1
    assert len(attempts) <= 6
    world.broker.away = False
    world.pass_by(LONGEST)
    assert world.told == [0, 50]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "this node's state cannot be told (OSError): trying every second",
        "this node's state is told again",
    ]


def test_a_node_whose_state_cannot_be_read_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broker, reads = Broker(), iter([ZeroDivisionError, None])

    def read() -> dict[str, Any]:
        error = next(reads, None)
        if error is not None:
            raise error
        return {"running": 1}

    teller = Teller(read, broker)
    teller.start()
    wait_for(lambda: broker.sent, 5)
    teller.close()
    assert "reading this node's state failed" in caplog.text


def test_a_stop_tells_the_last_state_and_ends_the_thread(world: World) -> None:
    teller = Teller(lambda: dict(world.fields), world.broker)
    teller.start()
    wait_for(lambda: world.broker.sent)
    world.fields["age"] = 1
    teller.close()
    teller.close()
    assert [fields["age"] for fields in world.broker.sent] == [0, 1]
    assert world.broker.closed == 1
    assert "concurrent-telling" not in {thread.name for thread in threading.enumerate()}


def test_a_stop_does_not_look_for_a_broker_that_is_away(world: World) -> None:
    world.broker.away = True
    world.pass_by(0)
    world.broker.away = False
    world.teller.look(last=True)
    assert world.broker.connections == 0


def test_a_stop_without_a_start_is_fine(world: World) -> None:
    world.teller.close()
    assert world.broker.sent == []
