"""The replay of arrivals through a policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from celery_concurrent import ConfigurationError
from celery_concurrent.autoscaler.breakeven import BreakEven
from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.model import AnyPolicy, Decision, Observation
from celery_concurrent.autoscaler.replay import Arrival, Engine
from celery_concurrent.autoscaler.simulate import simulate
from tests.unit.fleets import Recorded, turns


class Constant:
    """A policy that wants so many nodes, whatever comes."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes

    def initial(self) -> None:
        return None

    def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
        return Decision(desired=self._nodes, reason="constant"), None


def engine(**given: Any) -> Engine:
    return Engine(**{"target": 2, "max_inputs": 2, "cold_start": 10.0, **given})


def at(*times: float, seconds: float = 5.0) -> list[Arrival]:
    return [Arrival(at=time, seconds=seconds) for time in times]


def test_inputs_wait_for_a_cold_start_and_then_for_slots() -> None:
    replay = simulate(Constant(1), at(0.0, 1.0, 2.0, 14.0), engine())
    # Two start at 10 and end at 15; then the two that wait.
    assert replay.waits == (10.0, 9.0, 13.0, 1.0)
    assert replay.ended == 20.0
    assert replay.node_seconds == 20.0
    assert replay.peak == 1


def test_shares_of_the_waits() -> None:
    replay = simulate(Constant(1), at(0.0, 1.0, 2.0, 14.0), engine())
    assert [replay.wait(share) for share in (0.25, 0.5, 0.51, 1.0)] == [1.0, 9.0, 10.0, 13.0]
    assert (replay.within(1.0), replay.within(10.0)) == (0.25, 0.75)


def test_a_node_costs_from_its_order_until_it_leaves() -> None:
    replay = simulate(Hold(target=2, max_nodes=9, window=60.0), at(0.0), engine(), until=200.0)
    # Needed until 15, held until 75.
    assert replay.node_seconds == 75.0
    assert [(step.at, step.starting, step.ready) for step in replay.steps] == [
        (0.0, 1, 0),
        (10.0, 0, 1),
        (75.0, 0, 0),
    ]


def test_a_cancelled_start_costs_until_then_and_takes_no_inputs() -> None:
    class Fickle(Constant):
        def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
            wanted = 2 if observation.now < 4.0 else 1
            return Decision(desired=wanted, reason="", look_again_at=4.0), None

    replay = simulate(Fickle(0), at(10.0, 10.0, 10.0, 10.0), engine(), until=30.0)
    assert replay.node_seconds == 34.0
    # One node of two slots.
    assert replay.waits == (0.0, 0.0, 5.0, 5.0)
    assert (replay.starts, replay.cancels, replay.drains) == (2, 1, 0)


def test_a_draining_node_finishes_its_inputs_and_takes_no_others() -> None:
    class Leaving(Constant):
        def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
            wanted = 1 if observation.now < 12.0 else 0
            return Decision(desired=wanted, reason="", look_again_at=12.0), None

    replay = simulate(Leaving(0), at(0.0, 13.0), engine(), until=100.0)
    assert replay.waits == (10.0, math.inf)
    assert replay.node_seconds == 15.0
    assert (replay.starts, replay.cancels, replay.drains) == (1, 0, 1)
    assert replay.within(1e9) == 0.5


def test_inputs_spread_over_the_nodes_that_ask() -> None:
    policy = Recorded(Constant(3))
    simulate(policy, at(20.0, 21.0, 22.0), engine(max_inputs=10))
    fullest = [max(node.running for node in seen.nodes) for seen in policy.observations[4:7]]
    assert fullest == [1, 1, 1]


def test_inputs_run_longer_in_a_node_above_its_target() -> None:
    crowded = engine(target=4, max_inputs=6, slowdown=0.5)
    replay = simulate(Constant(1), at(*[10.0] * 6, seconds=8.0), crowded)
    # The sixth is half a target above: 8 x (1 + 0.5 x 0.5).
    assert replay.ended == 20.0
    assert simulate(Constant(1), at(*[10.0] * 4, seconds=8.0), crowded).ended == 18.0


def test_a_policy_is_asked_at_every_event_or_at_its_ticks() -> None:
    by_event, by_tick = Recorded(Constant(1)), Recorded(Constant(1))
    simulate(by_event, at(2.0), engine())
    assert [seen.now for seen in by_event.observations] == [0.0, 2.0, 10.0, 15.0]
    simulate(by_tick, at(2.0), engine(), every=4.0)
    assert [seen.now for seen in by_tick.observations] == [0.0, 4.0, 8.0, 12.0]


def test_simultaneous_arrivals_are_one_event() -> None:
    policy = Recorded(Constant(1))
    simulate(policy, at(*[2.0] * 50), engine(max_inputs=50))
    assert [seen.demand for seen in policy.observations[:2]] == [0, 50]


def test_a_policy_sees_how_many_arrived_and_finished() -> None:
    policy = Recorded(Constant(1))
    simulate(policy, at(0.0, 0.0, 0.0), engine())
    last = policy.observations[-1]
    assert (last.arrived, last.finished, last.demand) == (3, 3, 0)


def test_progress_counts_the_inputs_that_have_ended() -> None:
    told: list[int] = []
    simulate(Constant(1), at(0.0, 1.0, 2.0), engine(), progress=told.append)
    # Arrivals at 0, 1 and 2, the node at 10, then the ends.
    assert told == [0, 0, 0, 0, 2, 3]


def test_inputs_that_nobody_runs_end_the_replay_and_wait_for_ever() -> None:
    assert simulate(Constant(0), at(0.0, 1.0), engine()).waits == (math.inf, math.inf)
    assert simulate(Constant(0), at(0.0), engine(), every=3600.0).waits == (math.inf,)


def test_a_look_that_is_over_is_not_repeated() -> None:
    class Late(Constant):
        def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
            return Decision(desired=1, reason="", look_again_at=observation.now), None

    assert simulate(Late(1), at(0.0), engine()).decisions == 3


def test_no_arrivals_are_no_error() -> None:
    replay = simulate(Hold(target=2, max_nodes=9), [], engine())
    assert (replay.wait(0.99), replay.within(1.0), replay.node_seconds) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"target": 3}, r"target=3 must lie in 1\.\.max_inputs=2"),
        ({"cold_start": -1.0}, r"cold_start=-1\.0 must be a number of 0 or more"),
        ({"slowdown": math.nan}, "slowdown=nan must be a number of 0 or more"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        engine(**given)


POLICIES = some.sampled_from(
    [
        Hold(target=2, max_nodes=5, window=20.0),
        Hold(target=1, max_nodes=3, min_nodes=1, buffer_nodes=1, window=0.0),
        BreakEven(target=2, max_nodes=5, price=3.0),
        BreakEven(target=2, max_nodes=4, buffer_nodes=2, price=0.0),
    ]
)
TRACES = some.lists(
    some.builds(Arrival, at=some.floats(0, 200), seconds=some.floats(0, 50)), max_size=40
).map(lambda arrivals: sorted(arrivals, key=lambda arrival: arrival.at))


@given(POLICIES, TRACES, some.floats(0, 40), some.none() | some.floats(0.5, 20))
def test_every_input_runs_and_no_node_holds_more_than_its_slots(
    policy: AnyPolicy, arrivals: list[Arrival], cold_start: float, every: float | None
) -> None:
    recorded = Recorded(policy)
    replay = simulate(recorded, arrivals, engine(max_inputs=3, cold_start=cold_start), every=every)
    assert all(0 <= wait < math.inf for wait in replay.waits)
    for seen in recorded.observations:
        assert all(node.running <= 3 for node in seen.nodes)
        assert sum(node.running for node in seen.nodes) == seen.running


@given(POLICIES, TRACES, some.floats(0, 40))
def test_node_seconds_are_the_nodes_over_time(
    policy: AnyPolicy, arrivals: list[Arrival], cold_start: float
) -> None:
    replay = simulate(policy, arrivals, engine(cold_start=cold_start), until=300.0)
    ends = [step.at for step in replay.steps[1:]] + [300.0]
    area = sum(step.nodes * (end - step.at) for step, end in zip(replay.steps, ends, strict=True))
    assert replay.node_seconds == pytest.approx(area)


@pytest.mark.parametrize("cold_start", [5.0, 20.0, 60.0])
@pytest.mark.parametrize("rule", ["hold", "break-even"])
@pytest.mark.parametrize(
    "rate",
    [
        lambda now: 8.0 if now % 300 < 150 else 0.0,
        lambda now: 8.0 * (now % 300) / 300,
        lambda now: 80.0 if now % 300 < 2 else 0.0,
    ],
    ids=["square", "sawtooth", "spikes"],
)
def test_periodic_arrivals_turn_the_fleet_at_most_once_per_period(
    rule: str, rate: Any, cold_start: float
) -> None:
    arrivals, due = [], 0.0
    for tenth in range(12_000):
        due += rate(tenth / 10) / 10
        while due >= 1:
            due -= 1
            arrivals.append(Arrival(at=tenth / 10, seconds=10.0))
    # What queued up during a start is gone again before a shorter window is over.
    policy: AnyPolicy = Hold(target=4, max_nodes=64, window=3 * cold_start)
    if rule == "break-even":
        policy = BreakEven(target=4, max_inputs=5, max_nodes=64, price=3.0)
    replay = simulate(policy, arrivals, Engine(target=4, max_inputs=5, cold_start=cold_start))
    assert turns([step.desired for step in replay.steps]) <= 4
