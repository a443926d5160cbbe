"""The loop that keeps fleets, with an engine, a broker and a clock of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from celery_concurrent.autoscaler.desk import Desk
from celery_concurrent.autoscaler.keeper import Keeper
from celery_concurrent.autoscaler.loop import Autoscaler
from celery_concurrent.autoscaler.overrides import Overrides, applied
from celery_concurrent.autoscaler.provider import (
    FleetSpec,
    NodeProcess,
    NodeStartError,
    ProcessState,
    ProviderError,
)
from celery_concurrent.autoscaler.reports import Reports
from celery_concurrent.board import Board
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet
from celery_concurrent.gpu.device import Inventory
from celery_concurrent.knobs import Layer
from celery_concurrent.limits import Limits
from tests.services.waiting import wait_for


class Engine:
    """Nodes that are ready, and end, when the test says so."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeProcess] = {}
        self.started: list[Mapping[str, str]] = []
        self.refuses = False
        self.answers = True
        self.now = 0.0

    def start(self, fleet: FleetSpec, env: Mapping[str, str]) -> str:
        if self.refuses:
            raise NodeStartError("no room for its record")
        name = f"{fleet.queue}-{len(self.started)}"
        self.started.append(env)
        self.nodes[name] = NodeProcess(
            name=name,
            queue=fleet.queue,
            state=ProcessState.RUNNING,
            since=self.now,
            began=self.now,
            env=dict(env),
        )
        return name

    def drain(self, name: str) -> None:
        self.nodes[name] = replace(self.nodes[name], state=ProcessState.DRAINING)

    def stop(self, name: str) -> None:
        del self.nodes[name]

    def list(self) -> Sequence[NodeProcess]:
        if not self.answers:
            raise ProviderError("gone")
        return list(self.nodes.values())

    def close(self, *, stop_all: bool = False) -> None:
        """Nothing to let go of."""

    def end(self, name: str, code: int) -> None:
        self.nodes[name] = replace(
            self.nodes[name],
            state=ProcessState.ENDED,
            since=self.now,
            exit_code=code,
            last_lines=("boom",),
        )

    def living(self, state: ProcessState = ProcessState.RUNNING) -> Sequence[str]:
        return [name for name, node in self.nodes.items() if node.state is state]


class Broker:
    """Backlogs."""

    pause = 0.01

    def __init__(self) -> None:
        self.backlogs: dict[str, int | None] = {"q": 0}

    def read(self, queues: Sequence[str]) -> Mapping[str, int | None]:
        return {queue: self.backlogs.get(queue) for queue in queues}


class SlowBroker(Broker):
    """Answers when the test says so."""

    pause = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Semaphore(0)

    def read(self, queues: Sequence[str]) -> Mapping[str, int | None]:
        self.asked.release()
        assert self.may_answer.acquire(timeout=10)
        return super().read(queues)


class AnyDevices:
    """As many devices as ``room``."""

    def __init__(self) -> None:
        self.room = 1000
        self.faults: dict[str, str] = {}

    def environments(
        self, fleet: Fleet, count: int, nodes: Iterable[NodeProcess]
    ) -> tuple[list[dict[str, str]], str | None]:
        fitting = min(count, self.room - len(list(nodes)))
        return [{} for _ in range(fitting)], None if fitting == count else f"{fitting} fit"

    def lost(self, process: NodeProcess) -> str | None:
        return self.faults.get(process.name)

    def let_go(self, nodes: Iterable[NodeProcess]) -> None:
        """Nothing is held."""

    def inventory(self) -> Inventory:
        return Inventory()


class World:
    """An autoscaler and all that it touches."""

    def __init__(self, broker: Broker | None = None, **knobs: Any) -> None:
        self.engine, self.broker, self.devices = Engine(), broker or Broker(), AnyDevices()
        self.reports = Reports()
        said = {"max_nodes": 10, "scaledown_window": 30.0, **knobs}
        fleet = Fleet(
            queue="q",
            tasks=("shop.q",),
            limits=Limits(max_inputs=20),
            layers=(Layer.of("q", "the test", said),),
        )
        self.scaler = Autoscaler(
            {"q": fleet},
            provider=self.engine,
            backlog=self.broker,
            reports=self.reports,
            pins=self.devices,
            clock=lambda: self.engine.now,
            wall=lambda: self.engine.now,
        )

    @property
    def keeper(self) -> Any:
        return self.scaler.keepers["q"]

    def say(self, name: str, state: str = "ready", **fields: Any) -> None:
        self.reports.note({"hostname": name, "state": state, **fields}, self.engine.now)

    def all_ready(self, **fields: Any) -> None:
        for name in self.engine.living():
            self.say(name, **fields)

    def turn(self, seconds: float = 0.0) -> Sequence[str]:
        self.engine.now += seconds
        self.scaler.turn()
        return self.engine.living()


def test_the_fleet_follows_its_backlog_and_leaves() -> None:
    world = World()
    assert world.turn() == []
    world.broker.backlogs["q"] = 100
    assert len(world.turn()) == 5
    assert len(world.turn()) == 5  # starting nodes are capacity
    world.broker.backlogs["q"] = 1
    world.all_ready(running=20)
    assert len(world.turn()) == 6
    world.broker.backlogs["q"] = 0
    world.all_ready(finished=20)
    assert len(world.turn(1)) == 6  # held for the window
    world.engine.now += 40
    world.all_ready(finished=20)
    assert world.turn() == []
    assert len(world.engine.living(ProcessState.DRAINING)) == 6


def test_a_broker_or_a_node_that_does_not_answer_holds_the_fleet() -> None:
    world = World(scaledown_window=0.0)
    world.broker.backlogs["q"] = 60
    assert len(world.turn()) == 3
    world.all_ready()
    world.broker.backlogs["q"] = None
    assert len(world.turn(1)) == 3
    assert "broker does not answer" in world.keeper.decision.reason
    world.broker.backlogs["q"] = 0
    assert len(world.turn(100)) == 3
    assert "no word from" in world.keeper.decision.reason
    world.engine.answers = False
    assert len(world.turn()) == 3
    world.engine.answers = True
    world.all_ready(finished=20)
    assert world.turn() == []


def test_inputs_that_are_taken_and_not_yet_told_of_keep_their_nodes() -> None:
    world = World(scaledown_window=0.0)
    world.broker.backlogs["q"] = 60
    world.turn()
    world.all_ready()
    world.broker.backlogs["q"] = 0
    assert len(world.turn(0.1)) == 3
    world.all_ready(running=20)
    assert len(world.turn(0.1)) == 3
    (leaving, *_) = world.engine.living()
    world.say(leaving, finished=20)
    assert leaving not in world.turn(0.1)


def test_words_of_nodes_of_other_hosts_and_late_ones_of_its_own_are_forgotten() -> None:
    world = World(min_nodes=1)
    (own,) = world.turn()
    for name in (own, "other@host", "gone@host"):
        world.say(name)
    world.say("gone@host", "draining", ended=True)
    world.turn(30)
    assert set(world.reports.all()) == {own, "other@host"}
    world.say("other@host")
    world.turn(60)
    assert set(world.reports.all()) == {own, "other@host"}
    world.engine.end(own, 0)
    world.turn(1)
    world.say(own, "draining", ended=True)
    world.turn()
    assert set(world.reports.all()) == set()


def test_what_a_node_ran_that_left_in_order_is_done() -> None:
    """Its last event may come after its end."""
    world = World(scaledown_window=0.0)
    world.broker.backlogs["q"] = 1
    (name,) = world.turn()
    world.say(name, running=1)
    world.broker.backlogs["q"] = 0
    assert world.turn(0.1) == [name]
    world.engine.end(name, 0)
    assert world.turn(0.1) == []


@pytest.mark.parametrize("policy", ["hold", "break-even"])
def test_the_nodes_found_at_a_restart_are_kept_while_they_say_one_by_one_what_they_run(
    policy: str,
) -> None:
    world = World(policy=policy, scaledown_window=10.0)
    world.engine.nodes = {
        name: NodeProcess(
            name=name, queue="q", state=ProcessState.RUNNING, since=0.0, began=0.0, adopted=True
        )
        for name in "abcdef"
    }
    world.broker.backlogs["q"] = 1
    for name in "abcdef":
        world.turn(0.1)
        world.say(name, running=1)
    world.broker.backlogs["q"] = 0
    for _ in range(9):
        world.all_ready()
        assert len(world.turn(1)) == 6
    world.all_ready()
    world.turn(20)
    world.all_ready()
    assert world.turn(0.1) == []


def test_a_crashed_node_is_replaced_after_a_pause_and_three_make_the_fleet_failing() -> None:
    world = World(min_nodes=1)
    for crash in range(3):
        (name,) = world.turn(100)
        world.engine.end(name, 1)
        assert world.turn() == [], crash
    assert world.keeper.backoff.failing
    assert world.keeper.last_lines == ("boom",)
    (name,) = world.turn(100)
    world.say(name, running=1)
    world.turn()
    assert not world.keeper.backoff.failing


def test_nodes_that_leave_by_themselves_at_once_are_replaced_after_a_pause() -> None:
    """As those of an app that calls sys.exit() when it is imported."""
    world = World(min_nodes=1)
    for leaving in range(3):
        (name,) = world.turn(100)
        world.engine.end(name, 0)
        assert world.turn(1) == [], leaving
    assert world.keeper.backoff.failing
    assert world.keeper.last_lines == ("boom",)


def test_a_node_that_leaves_by_itself_after_a_while_is_replaced_at_once() -> None:
    world = World(min_nodes=1)
    (name,) = world.turn()
    world.engine.now += 100
    world.engine.end(name, 0)
    assert len(world.turn()) == 1
    assert world.keeper.backoff.crashes == 0


def test_a_node_that_crashes_after_a_days_work_is_the_first_of_a_row() -> None:
    world = World(min_nodes=1)
    for _ in range(4):
        (name,) = world.turn()
        world.engine.now += 86400
        world.engine.end(name, 1)
        world.turn()
        world.engine.now += 10
    assert world.keeper.backoff.crashes == 1


def test_a_node_that_was_told_to_leave_has_not_crashed() -> None:
    world = World(scaledown_window=0.0)
    world.broker.backlogs["q"] = 1
    (name,) = world.turn()
    world.all_ready(finished=1)
    world.broker.backlogs["q"] = 0
    world.turn(1)
    world.engine.end(name, -9)
    world.turn(1)
    assert world.engine.nodes == {}
    assert world.keeper.backoff.crashes == 0


def test_an_adopted_node_that_another_autoscaler_had_told_to_leave_has_not_crashed() -> None:
    world = World()
    adopted = NodeProcess(
        name="q-a",
        queue="q",
        state=ProcessState.ENDED,
        since=0.0,
        began=0.0,
        adopted=True,
        drained=True,
    )
    for crashes, process in enumerate((adopted, replace(adopted, name="q-b", drained=False))):
        world.engine.nodes[process.name] = process
        world.turn()
        assert world.keeper.backoff.crashes == crashes
    assert world.engine.nodes == {}


def test_an_engine_that_cannot_start_is_not_asked_all_the_time() -> None:
    world = World(min_nodes=1)
    world.engine.refuses = True
    world.turn()
    assert world.keeper.backoff.crashes == 1
    assert "no room" in world.keeper.last_lines[0]
    world.engine.refuses = False
    assert world.turn() == []
    assert len(world.turn(2)) == 1


def test_fleets_that_start_from_nothing_at_once_share_no_device() -> None:
    world = World(min_nodes=1)
    other = add_fleet(world, "r")
    world.devices.room = 1
    assert world.turn() == ["q-0"]
    assert other.missing == "0 fit"


def test_a_process_of_a_start_that_failed_keeps_its_devices_from_other_fleets() -> None:
    world = World(min_nodes=1)
    add_fleet(world, "r")
    ghost = NodeProcess(
        name="late", queue="q", state=ProcessState.PENDING, since=0.0, began=0.0, drained=True
    )
    world.engine.nodes["late"] = ghost
    world.scaler._processes = list  # type: ignore[method-assign]  # before there was one
    world.engine.refuses = True
    world.devices.room = 1
    world.turn()
    assert world.scaler.keepers["r"].missing == "0 fit"


def test_nodes_that_run_do_not_make_the_engine_be_asked_all_the_time() -> None:
    world = World()
    world.broker.backlogs["q"] = 20
    world.turn()
    world.all_ready(running=20)
    world.broker.backlogs["q"] = 20
    world.engine.refuses = True
    for crashes, pause in ((1, 1.1), (2, 2.1), (3, 4.1)):
        world.turn()
        assert len(world.turn(0.1)) == 1
        assert world.keeper.backoff.crashes == crashes
        world.engine.now += pause
        world.all_ready(running=20)
    assert world.keeper.backoff.failing
    world.engine.refuses = False
    assert len(world.turn()) == 2
    world.all_ready(running=20)
    world.broker.backlogs["q"] = 0
    world.turn()
    assert not world.keeper.backoff.failing


def test_what_does_not_fit_is_said_and_started_later() -> None:
    world = World()
    world.devices.room = 2
    world.broker.backlogs["q"] = 100
    assert len(world.turn()) == 2
    assert world.keeper.missing == "2 fit"
    world.devices.room = 10
    assert len(world.turn()) == 5
    assert world.keeper.missing is None


def test_a_node_whose_device_is_lost_is_drained() -> None:
    world = World(min_nodes=2)
    first, second = world.turn()
    world.all_ready()
    world.devices.faults[first] = "device GPU-0: lost"
    world.turn()
    assert world.engine.living(ProcessState.DRAINING) == [first]
    assert len(world.turn()) == 2  # another takes its place
    assert second in world.engine.living()


def add_fleet(world: World, queue: str, backlog: int = 0) -> Keeper:
    keeper = Keeper(replace(world.keeper.fleet, queue=queue), wall=lambda: 0.0)
    world.scaler.keepers[queue] = keeper
    world.broker.backlogs[queue] = backlog
    return keeper


def test_what_goes_wrong_with_one_fleet_is_said_and_the_others_are_kept(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    broken = add_fleet(world, "a", backlog=1)
    add_fleet(world, "r", backlog=1)
    world.broker.backlogs["q"] = 1
    looks: list[str] = []
    monkeypatch.setattr(broken, "look", partial(failing_look, looks))
    world.turn()
    assert sorted(world.engine.living()) == ["q-0", "r-1"]
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said.getMessage() == "fleet a cannot be kept, and is looked at again in 1 s"
    assert said.exc_info is not None
    world.turn(0.1)
    assert len(looks) == 1
    assert world.scaler.turn() == pytest.approx(0.9)
    world.turn(1)
    assert len(looks) == 2
    status, *_ = desk_of(world, Overrides(tmp_path / "overrides.json")).status()["fleets"]
    assert (status["state"], status["last_lines"]) == ("failing", ["RuntimeError: broken"])
    monkeypatch.undo()
    assert "a-2" in world.turn(2)
    assert broken.trouble.crashes == 0


def failing_look(looks: list[str], _reading: Any) -> Any:
    looks.append("a")
    raise RuntimeError("broken")


def test_adopted_nodes_of_a_queue_that_the_app_no_longer_has_are_drained_once(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(min_nodes=1)
    desk = desk_of(world, Overrides(tmp_path / "overrides.json"))
    (own,) = world.turn()
    world.engine.nodes["old-0"] = replace(
        world.engine.nodes[own], name="old-0", queue="old", adopted=True
    )
    desk.drain()
    for _ in range(3):
        assert world.turn() == []
    assert world.engine.living(ProcessState.DRAINING) == [own, "old-0"]
    (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "draining old-0" in said.getMessage()
    assert "queue 'old'" in said.getMessage()
    world.engine.end("old-0", 0)
    world.turn()
    assert list(world.engine.nodes) == [own]


def test_the_loop_sleeps_until_a_hold_ends() -> None:
    world = World(scaledown_window=0.5)
    world.broker.backlogs["q"] = 1
    world.turn()
    world.all_ready(finished=1)
    world.broker.backlogs["q"] = 0
    world.engine.now += 0.1
    assert world.scaler.turn() == pytest.approx(0.5, abs=0.11)


def test_a_fleet_whose_backlog_has_changed_is_looked_at_before_the_others() -> None:
    world = World()
    looked: list[str] = []
    for queue in ("r", "s"):
        add_fleet(world, queue)
    world.turn()
    for queue, keeper in world.scaler.keepers.items():
        look = partial(noted_look, looked, queue, keeper.look)
        keeper.look = look  # type: ignore[method-assign]
    world.broker.backlogs["s"] = 1
    world.turn()
    assert looked == ["s", "q", "r"]


def noted_look(looked: list[str], queue: str, look: Any, reading: Any) -> Any:
    looked.append(queue)
    return look(reading)


@pytest.fixture
def slow() -> Iterator[tuple[World, SlowBroker, list[int]]]:
    """A running loop whose broker is slow, and the backlogs that it has looked at."""
    broker = SlowBroker()
    world, looks = World(broker), []
    look = world.keeper.look

    def noted(reading: Any) -> Any:
        looks.append(reading.backlog)
        return look(reading)

    world.keeper.look = noted
    with running(world):
        yield world, broker, looks
        world.scaler.stop()
        broker.may_answer.release(100)


@contextmanager
def running(world: World) -> Iterator[None]:
    """Its loop runs on a thread."""
    thread = threading.Thread(target=world.scaler.run)
    thread.start()
    try:
        yield
    finally:
        world.scaler.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_what_a_thousand_nodes_say_is_looked_at_with_the_next_reading(
    slow: tuple[World, SlowBroker, list[int]],
) -> None:
    world, broker, looks = slow
    assert broker.asked.acquire(timeout=10)  # by the first look
    broker.may_answer.release()
    assert broker.asked.acquire(timeout=10)  # between looks
    assert looks == [0]
    for _ in range(1000):
        world.scaler.heard()
    broker.may_answer.release()
    assert broker.asked.acquire(timeout=10)  # between looks again
    assert looks == [0, 0]


def test_a_reading_that_shows_an_arrival_is_the_one_that_is_decided_on(
    slow: tuple[World, SlowBroker, list[int]],
) -> None:
    world, broker, looks = slow
    assert broker.asked.acquire(timeout=10)
    broker.may_answer.release()
    assert broker.asked.acquire(timeout=10)
    broker.backlogs["q"] = 1
    broker.may_answer.release()
    assert broker.asked.acquire(timeout=10)
    # Three questions: one for each look, and the one that is open.
    assert looks == [0, 1]
    assert len(world.engine.living()) == 1


def desk_of(world: World, overrides: Overrides) -> Desk:
    return Desk(world.scaler, overrides, Board(), lambda: world.engine.now)


def test_who_asks_for_the_status_is_told_of_a_node_that_has_just_started(tmp_path: Any) -> None:
    world = World()
    desk = desk_of(world, Overrides(tmp_path / "overrides.json"))
    with running(world):
        for started in range(1, 4):
            world.broker.backlogs["q"] = 20 * started
            wait_for(lambda: len(world.engine.living()) == started)  # noqa: B023
            (fleet,) = desk.handlers()["status"]()["fleets"]
            assert [node["name"] for node in fleet["nodes"]] == world.engine.living()


def test_who_asks_while_the_autoscaler_ends_is_told_how_its_nodes_leave(tmp_path: Any) -> None:
    world = World(min_nodes=2)
    desk = desk_of(world, Overrides(tmp_path / "overrides.json"))
    first, second = world.turn()
    thread = threading.Thread(target=world.scaler.end)
    thread.start()
    (fleet,) = desk.handlers()["status"]()["fleets"]
    assert (fleet["state"], fleet["reason"]) == ("drained", "the autoscaler ends")
    assert [node["state"] for node in fleet["nodes"]] == ["draining", "draining"]
    desk.handlers()["resume"]()
    world.engine.end(first, 0)
    (fleet,) = desk.handlers()["status"]()["fleets"]
    assert [node["name"] for node in fleet["nodes"]] == [second]
    world.engine.end(second, 0)
    world.scaler.wake()
    thread.join(10)
    assert not thread.is_alive()
    assert len(world.engine.started) == 2


def test_the_loop_sleeps_though_a_node_has_crashed_that_nobody_needs_any_more() -> None:
    world = World(scaledown_window=0.0)
    world.broker.backlogs["q"] = 1
    (name,) = world.turn()
    world.engine.end(name, 1)
    assert world.scaler.turn() == pytest.approx(1.0)  # until the pause is over
    world.broker.backlogs["q"] = 0
    world.turn(100)
    assert world.scaler.turn() == pytest.approx(1.0)  # TICK
    assert world.keeper.backoff.crashes == 1


def test_changes_at_run_time_are_kept(tmp_path: Any) -> None:
    world = World()
    overrides = Overrides(tmp_path / "overrides.json")
    desk = desk_of(world, overrides)
    world.broker.backlogs["q"] = 1000
    desk.set("q", {"max_nodes": 2})
    assert len(world.turn()) == 2
    assert Overrides(tmp_path / "overrides.json").knobs == {"q": {"max_nodes": 2}}
    desk.set("q", {"max_nodes": None})
    assert len(world.turn()) == 10
    with pytest.raises(ConfigurationError, match="max_nodes"):
        desk.set("q", {"max_nodes": -1})
    with pytest.raises(ConfigurationError, match="no fleet 'other'"):
        desk.set("other", {"max_nodes": 1})
    assert Overrides(tmp_path / "overrides.json").knobs == {"q": {}}


def test_a_fleet_that_is_drained_by_hand_stays_so_until_it_is_resumed(tmp_path: Any) -> None:
    world = World(min_nodes=1)
    overrides = Overrides(tmp_path / "overrides.json")
    desk = desk_of(world, overrides)
    world.turn()
    desk.drain(["q"])
    assert world.turn() == []
    assert Overrides(tmp_path / "overrides.json").drained == {"q"}
    assert desk.status()["fleets"][0]["state"] == "drained"
    desk.resume()
    assert len(world.turn()) == 1


@pytest.mark.parametrize("policy", ["hold", "break-even"])
def test_a_fleet_that_is_resumed_wants_nothing_of_what_it_wanted_before(
    tmp_path: Any, policy: str
) -> None:
    world = World(policy=policy, scaledown_window=600.0)
    desk = desk_of(world, Overrides(tmp_path / "overrides.json"))
    world.broker.backlogs["q"] = 100
    world.turn()
    desk.drain()
    world.turn(1)
    world.engine.nodes.clear()
    world.broker.backlogs["q"] = 0
    for seconds in (3600, 10):  # what left the broker unseen counts as demand for a while
        world.turn(seconds)
    desk.resume()
    assert world.turn(1) == []


def test_a_change_that_cannot_be_kept_is_not_made(tmp_path: Any) -> None:
    world = World()
    overrides = Overrides(tmp_path / "gone" / "overrides.json")
    desk = desk_of(world, overrides)
    world.broker.backlogs["q"] = 1000
    with pytest.raises(FileNotFoundError):
        desk.set("q", {"max_nodes": 2})
    with pytest.raises(FileNotFoundError):
        desk.drain(["q"])
    assert len(world.turn()) == 10
    (tmp_path / "gone").mkdir()
    desk.set("q", {"min_nodes": 1})
    kept = Overrides(tmp_path / "gone" / "overrides.json")
    assert (kept.knobs, kept.drained) == ({"q": {"min_nodes": 1}}, set())


def test_a_fleet_that_has_outgrown_its_overrides_starts_without_and_says_so(
    tmp_path: Any,
) -> None:
    path = tmp_path / "overrides.json"
    kept = Overrides(path)
    knobs = {"q": {"min_nodes": 6}, "r": {"max_nodes": 2}, "gone": {"max_nodes": 1}}
    kept.keep(knobs=knobs, drained=())
    q = World(max_nodes=4).keeper.fleet
    fleets, outgrown = applied({"q": q, "r": replace(q, queue="r")}, Overrides(path))
    assert (fleets["q"].knobs, fleets["r"].knobs.max_nodes) == (q.knobs, 2)
    assert list(fleets) == ["q", "r"]
    (told,) = outgrown
    for word in ("fleet q ", "min_nodes=6", "max_nodes=4", str(path), "`fleet set q --reset`"):
        assert word in told


def test_overrides_that_cannot_be_read_are_no_overrides_by_accident(tmp_path: Any) -> None:
    (tmp_path / "overrides.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"overrides\.json"):
        Overrides(tmp_path / "overrides.json")
