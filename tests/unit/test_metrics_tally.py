"""Figures that outlive nodes: what counts, what counts once, and what does not count."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.metrics.tally import CAUSES, FORGOTTEN_AFTER, LONGEST_GAP, Tally
from celery_concurrent.metrics.totals import OTHERS
from celery_concurrent.pool.timing import BUCKETS

LENGTH = len(BUCKETS) + 1


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    """One that has listened for a minute."""
    tally = Tally(clock=clock)
    clock.now += 60.0
    return tally


def series(count: int, *, bucket: int = 3) -> list[int]:
    counts = [0] * LENGTH
    counts[bucket] = count
    return counts


def timing(run: int, *, wait: int = 0, seconds: float = 0.1) -> dict[str, Any]:
    """So many inputs that ran for so long."""
    return {
        "run": series(run),
        "run_sum": round(run * seconds, 3),
        "wait": series(wait),
        "wait_sum": round(wait * seconds, 3),
    }


def said(
    run: int = 0, *, name: str = "a@host", task: str = "t", wait: int = 0, **fields: Any
) -> dict[str, Any]:
    """The event of a young node that has run so many inputs of one task."""
    return {
        "type": "concurrency-node",
        "hostname": name,
        "pid": 7,
        "state": "ready",
        "state_age": 1.0,
        "age": 3.0,
        "queues": ["q"],
        "slots": 10,
        "running": 4,
        "timing": {task: timing(run, wait=wait)},
        "outcomes": {task: {"succeeded": run}},
        **fields,
    }


def ran(tally: Tally, task: str = "t") -> int:
    totals = tally.tasks()[task]
    assert totals.outcomes["succeeded"] == sum(totals.run.counts)
    assert totals.run.sum == pytest.approx(0.1 * sum(totals.run.counts))
    return sum(totals.run.counts)


# -- inputs


def test_the_nodes_figures_add_up(tally: Tally) -> None:
    tally.note(said(3, wait=2))
    tally.note(said(5, name="b@host"))
    tally.note(said(4, wait=3, age=4.0))
    totals = tally.tasks()["t"]
    assert totals.run.counts == series(9)
    assert totals.run.sum == pytest.approx(0.9)
    assert totals.wait.counts == series(3)
    assert totals.outcomes == {"succeeded": 9, "failed": 0}


def test_what_an_ended_node_had_stays(tally: Tally, clock: Clock) -> None:
    tally.note(said(3))
    tally.note(said(5, state="draining", ended=True))
    clock.now += 2 * FORGOTTEN_AFTER
    tally.note(said(2, name="b@host"))
    assert ran(tally) == 7


@pytest.mark.parametrize(
    "again",
    [
        pytest.param({"pid": 8}, id="another process"),
        pytest.param({"age": 1.5}, id="the first process of another container: younger"),
        pytest.param({"age": None}, id="nothing but counts that have fallen"),
    ],
)
def test_a_node_that_begins_again_under_its_name_adds_to_what_it_had(
    tally: Tally, again: Mapping[str, Any]
) -> None:
    tally.note(said(5))
    tally.note(said(2, **again))
    tally.note(said(3, **again))
    assert ran(tally) == 8


@pytest.mark.parametrize("fallen", ["timing", "outcomes"])
def test_one_kind_of_figures_that_falls_tells_of_a_new_beginning(tally: Tally, fallen: str) -> None:
    other: dict[str, Any] = {"outcomes": {}} if fallen == "timing" else {"timing": {}}
    tally.note(said(5, **other))
    tally.note(said(2, age=None, **other))
    totals = tally.tasks()["t"]
    assert {sum(totals.run.counts), totals.outcomes["succeeded"]} == {7, 0}
    assert tally._accounts == 1


def test_two_nodes_of_one_name_do_not_take_each_other_for_a_restart(tally: Tally) -> None:
    for _ in range(5):
        tally.note(said(5, pid=7))
        tally.note(said(2, pid=8))
    assert ran(tally) == 7


def test_the_same_word_twice_counts_once(tally: Tally) -> None:
    for _ in range(3):
        tally.note(said(5))
    assert ran(tally) == 5


def test_of_a_node_older_than_the_tally_counts_what_follows(clock: Clock) -> None:
    """Prometheus would take the sums that it has read before for new inputs."""
    tally = Tally(clock=clock)
    clock.now += 1.0
    tally.note(said(1000, age=500.0))
    assert ran(tally) == 0, "and there is a 0 from which to count"
    tally.note(said(1003, age=501.0))
    assert ran(tally) == 3


def test_a_forgotten_node_that_comes_back_is_not_counted_again(tally: Tally, clock: Clock) -> None:
    tally.note(said(5))
    clock.now += FORGOTTEN_AFTER + 1
    tally.note(said(1, name="b@host"))
    assert len(tally._nodes) == 1
    # On its way for a second, so that it seems younger than it is.
    tally.note(said(9, age=FORGOTTEN_AFTER + 3.0))
    assert ran(tally) == 6
    tally.note(said(10, age=FORGOTTEN_AFTER + 4.0))
    assert ran(tally) == 7
    assert sum(tally.queues()["q"].startup.counts) == 2


def test_the_tasks_of_a_fleet_count_from_zero_before_their_first_input(tally: Tally) -> None:
    """The first step of a counter that was not there cannot be seen."""
    tally.note(fleet({}))
    assert tally.tasks()["t"].run.counts == [0] * LENGTH
    assert tally.queues()["q"].decisions == dict.fromkeys(CAUSES, 0)


# -- start-up and idle slots


def test_a_start_is_counted_once_for_each_node(tally: Tally) -> None:
    tally.note(said(state="starting", age=1.0, state_age=1.0))
    for age in (8.0, 9.0, 10.0):
        tally.note(said(age=age, state_age=age - 7.0))
    tally.note(said(state="draining", age=11.0, state_age=0.5))
    startup = tally.queues()["q"].startup
    assert (sum(startup.counts), startup.sum) == (1, 7.0)
    assert startup.counts[startup.bounds.index(10.0)] == 1


def test_a_node_that_was_ready_before_counts_by_its_age(tally: Tally) -> None:
    tally.note(said(age=900.0, state_age=880.0))
    tally.note(said(name="b@host", age=None))
    startup = tally.queues()["q"].startup
    assert (sum(startup.counts), startup.sum) == (1, 20.0)


def test_idle_slots_are_those_of_ready_nodes(tally: Tally, clock: Clock) -> None:
    tally.note(said(state="starting", age=1.0))
    clock.now += 2.0
    tally.note(said(slots=10, running=4))  # starting until now
    clock.now += 2.0
    tally.note(said(slots=10, running=10))  # six idle for two seconds
    clock.now += 2.0
    tally.note(said(slots=10, running=9))  # full
    clock.now += 600.0
    tally.note(said(state="draining", slots=10, running=0))  # one, and its silence is no idling
    clock.now += 2.0
    tally.note(said(state="draining", slots=10, running=0))
    assert tally.queues()["q"].idle == pytest.approx(12.0 + LONGEST_GAP)


# -- decisions


def fleet(decided: object, **fields: Any) -> dict[str, Any]:
    return {
        "type": "concurrency-fleet",
        "hostname": "autoscaler@host",
        "pid": 3,
        "queue": "q",
        "tasks": ["t"],
        "age": 3.0,
        "decided": decided,
        **fields,
    }


def test_decisions_go_on_with_the_next_autoscaler(tally: Tally) -> None:
    tally.note(fleet({"demand": 2}))
    tally.note(fleet({"demand": 3, "unneeded": 1}))
    tally.note(fleet({"demand": 1}, pid=4))
    tally.note(fleet({"demand": 4}, hostname="autoscaler@other"))
    tally.note(fleet({"demand": 2}, hostname="autoscaler@other"))  # fallen: another one
    tally.note(fleet("nothing"))
    tally.note(fleet({"demand": 3, "unneeded": 1}))
    decisions = tally.queues()["q"].decisions
    assert decisions == {**dict.fromkeys(CAUSES, 0), "demand": 10, "unneeded": 1}


@pytest.mark.parametrize("age", [70.0, None])
def test_of_an_autoscaler_older_than_the_tally_the_decisions_that_follow_count(
    tally: Tally, age: float | None
) -> None:
    tally.note(fleet({"demand": 3000}, age=age))
    tally.note(fleet({"demand": 3001, "unneeded": 1}, age=age))
    decisions = tally.queues()["q"].decisions
    assert decisions == {**dict.fromkeys(CAUSES, 0), "demand": 1, "unneeded": 1}


def test_decisions_of_an_autoscaler_that_was_forgotten_do_not_count_again(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_concurrent.metrics.tally._MOST_DECIDED", 1)
    tally.note(fleet({"demand": 2}))
    tally.note(fleet({"demand": 5}, queue="p"))
    tally.note(fleet({"demand": 2}))
    tally.note(fleet({"demand": 3}))
    assert tally.queues()["q"].decisions["demand"] == 3


# -- events from anybody


HOSTILE: list[dict[str, Any]] = [
    {},
    {"type": ["concurrency-node"]},
    said(hostname=None),
    said(hostname={}),
    said(state=["ready"]),
    said(pid="7"),
    said(queues="q"),
    said(queues=[[], {}, None, ""]),
    said(slots="many", running=-1),
    said(slots=10**400, running=0),
    said(age=10**400, state_age=math.nan),
    said(age=math.inf),
    said(timing=[1]),
    said(timing={"t": None, "u": 3, "": timing(2), "v" * 256: timing(2)}),
    said(timing={"t": {**timing(1), "run": series(1)[1:]}}),
    said(timing={"t": {**timing(1), "run": [10**400] * LENGTH}}),
    said(timing={"t": {**timing(1), "run": [True] * LENGTH}}),
    said(timing={"t": {**timing(1), "run_sum": math.nan}}),
    said(timing={"t": {**timing(1), "run_sum": "1"}}),
    said(outcomes={"t": {"succeeded": -1, "failed": 10**400, "": 1}}, timing=None),
    said(outcomes={"t": [1]}),
    said(outcomes=3),
    fleet([1]),
    fleet({"demand": -1, "x" * 256: 1, "y": "1", "z": 10**400}),
    fleet({"demand": 1}, queue=None),
    fleet({}, tasks=[[], None, ""]),
]


@pytest.mark.parametrize("event", HOSTILE, ids=str)
def test_what_is_not_well_formed_counts_nothing_and_harms_nothing(
    tally: Tally, event: Mapping[str, Any]
) -> None:
    tally.note(event)
    tally.note(said(3, name="sound@host", task="sound"))
    assert ran(tally, "sound") == 3
    for name, totals in tally.tasks().items():
        assert name == "sound" or sum(totals.run.counts) + totals.outcomes["failed"] == 0
    for queue in tally.queues().values():
        assert 0 <= queue.idle < 1e9
        assert sum(queue.decisions.values()) == 0
        assert queue.startup.sum < 1e9


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["ready", "draining", "q", "t", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.just("t"), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(said() | fleet({}))), ANYTHING, st.booleans()),
        max_size=6,
    )
)
def test_nothing_that_is_said_raises(changes: list[tuple[str, Any, bool]]) -> None:
    tally = Tally()
    for name, value, is_fleet in changes:
        tally.note({**(fleet({"demand": 1}) if is_fleet else said(2)), name: value})
    tally.tasks()
    tally.queues()


def test_names_without_end_take_no_room_without_end(clock: Clock) -> None:
    tally = Tally(clock=clock, most_nodes=50, most_accounts=200, most_names=20)
    tally.note(said(1, task="known"))
    for number in range(1000):
        clock.now += 0.01
        event = said(name=f"n{number}@host", queues=[f"q{number}-{n}" for n in range(30)])
        event["timing"] = {f"t{number}-{each}": timing(1) for each in range(20)}
        event["outcomes"] = {f"t{number}-0": {f"end{each}": 1 for each in range(30)}}
        tally.note({**event, "age": 0.0})
        tally.note(fleet({f"c{number}": 1}, queue=f"f{number}", tasks=[f"u{number}"]))
        tally.note(fleet({f"c{number}": 1}, queue="one"))
    assert len(tally._nodes) <= 50
    assert tally._accounts == sum(len(node.accounts) for node in tally._nodes.values()) <= 200
    tasks, queues = tally.tasks(), tally.queues()
    assert len(tasks) == len(queues) == 21
    assert sum(tasks[OTHERS].run.counts) > 0
    assert all(len(totals.outcomes) <= 25 for totals in tasks.values())
    assert all(len(totals.decisions) <= 25 for totals in queues.values())
    # It may be one of the forgotten; what it runs from here on counts.
    tally.note(said(1, name="young@host", task="known", age=0.0))
    tally.note(said(3, name="young@host", task="known", age=1.0))
    assert ran(tally, "known") == 2


def test_nodes_without_tasks_take_no_room_without_end(clock: Clock) -> None:
    tally = Tally(clock=clock, most_nodes=50)
    for number in range(100):
        tally.note(said(name=f"n{number}@host", timing={}, outcomes={}))
    assert len(tally._nodes) == 50


def test_a_node_that_names_tasks_without_end_keeps_none_beyond_its_share(tally: Tally) -> None:
    for number in range(100):
        told = {f"t{number}-{each}": timing(1) for each in range(100)}
        tally.note(said(timing=told, outcomes={}))
    (node,) = tally._nodes.values()
    assert len(node.accounts) == tally._accounts == 500


def test_threads_may_note_and_ask_at_once(tally: Tally) -> None:
    def speak(name: str) -> None:
        for count in range(500):
            tally.note(said(count, name=name))
            tally.tasks()

    threads = [threading.Thread(target=speak, args=[f"n{each}@host"]) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran(tally) == 4 * 499


def test_the_totals_are_those_of_all_runs_of_all_nodes(tally: Tally, clock: Clock) -> None:
    """Nodes live, restart and end at random, each told in any of its instants."""
    chance, expected = random.Random(5), 0
    for number in range(50):
        for pid in range(chance.randrange(1, 4)):
            count, age = 0, 0.0
            for _ in range(chance.randrange(2, 10)):
                clock.now += 0.1
                age += 0.1
                count += chance.randrange(5)
                tally.note(said(count, name=f"n{number % 7}@host", pid=pid, age=age))
            if chance.random() < 0.5:
                tally.note(said(count, name=f"n{number % 7}@host", pid=pid, age=age, ended=True))
            expected += count
    assert ran(tally) == expected
