"""Peak hold: up at once, down to the peak of the last window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from celery_concurrent import ConfigurationError
from celery_concurrent.autoscaler.bounds import nodes_for
from celery_concurrent.autoscaler.hold import Hold, HoldState
from celery_concurrent.autoscaler.learned import Learned
from celery_concurrent.autoscaler.model import Node, Observation
from tests.unit.fleets import WAVES, Fleet, node, ready, seen, starting, turns


def hold(**given: Any) -> Hold:
    return Hold(**{"target": 20, "max_nodes": 100, **given})


HOLDS = some.builds(
    lambda target, least, more, buffer, window: Hold(
        target=target, min_nodes=least, max_nodes=least + more, buffer_nodes=buffer, window=window
    ),
    some.integers(1, 30),
    some.integers(0, 5),
    some.integers(1, 20),
    some.integers(0, 5),
    # Not so short that it is lost in the rounding of sums.
    some.just(0.0) | some.floats(0.01, 100),
)
DEMANDS = some.lists(
    some.tuples(some.floats(0, 30), some.none() | some.integers(0, 500)), min_size=1, max_size=40
)


def looked(policy: Hold, demands: list[tuple[float, int | None]]) -> Fleet:
    """A fleet that saw these demands, each so many seconds after the one before."""
    fleet, now = Fleet(policy, cold_start=7.0), 0.0
    for after, demand in demands:
        now += after
        fleet.look(demand, now)
    return fleet


def test_one_hundred_inputs_at_twenty_per_node_are_five_nodes_and_one_more_is_a_sixth() -> None:
    fleet = Fleet(hold(), cold_start=5.0)
    assert fleet.look(100, 0.0).desired == 5
    assert fleet.look(101, 0.1).desired == 6
    assert fleet.look(101, 20.0).desired == 6


def test_an_idle_fleet_leaves_after_its_window_and_says_when() -> None:
    fleet = Fleet(hold(window=60.0))
    fleet.look(101, 0.0)
    held = fleet.look(0, 10.0)
    assert (held.desired, held.look_again_at) == (6, 70.0)
    assert fleet.look(0, 69.9).desired == 6
    gone = fleet.look(0, 70.0)
    assert (gone.desired, gone.look_again_at) == (0, None)


def test_the_window_begins_when_a_demand_ends_however_seldom_somebody_looked() -> None:
    fleet = Fleet(hold(window=60.0))
    fleet.look(100, 0.0)
    assert fleet.look(20, 500.0).look_again_at == 560.0


def test_a_fleet_goes_down_step_by_step_as_its_peaks_expire() -> None:
    fleet = Fleet(hold(window=60.0))
    for at, demand in ((0.0, 100), (10.0, 60), (20.0, 20)):
        fleet.look(demand, at)
    assert [fleet.look(20, at).desired for at in (69.0, 70.0, 79.0, 80.0)] == [5, 3, 3, 1]


def test_a_lower_peak_that_came_later_outlasts_a_higher_one() -> None:
    fleet = Fleet(hold(window=60.0))
    for at, demand in ((0.0, 100), (1.0, 0), (30.0, 60), (31.0, 0)):
        fleet.look(demand, at)
    assert fleet.look(0, 60.9).desired == 5
    assert fleet.look(0, 61.0).desired == 3
    assert fleet.look(0, 91.0).desired == 0


def test_without_a_window_the_fleet_follows_at_once() -> None:
    fleet = Fleet(hold(window=0.0))
    assert [fleet.look(d, at).desired for at, d in enumerate((100, 20, 0))] == [5, 1, 0]


def taking(busy: int, idle: int = 0) -> tuple[Node, ...]:
    """So many nodes with an input each, and so many without."""
    return (*(node(f"b{n}", running=1) for n in range(busy)), *ready(idle))


def after_a_peak(policy: Hold, nodes: tuple[Node, ...], *, run_time: float) -> HoldState:
    """A fleet whose inputs run so long, and whose peak of 100 inputs is over at 0."""
    learned = Learned(cold_start=0.0, busy=100 * run_time, done=100.0)
    before = HoldState(learned=learned, want=nodes_for(100, policy.target))
    return policy.decide(seen(0, nodes=nodes), before)[1]


def test_busy_nodes_are_kept_for_a_run_time_and_idle_ones_for_the_window() -> None:
    policy, nodes = hold(window=2.0), taking(3, idle=2)
    state = after_a_peak(policy, nodes, run_time=10.0)
    kept = [policy.decide(seen(0, at=at, nodes=nodes), state)[0] for at in (1.9, 2.0, 9.9, 10.0)]
    assert [(each.desired, each.look_again_at) for each in kept] == [
        (5, 2.0),
        (3, 10.0),
        (3, 10.0),
        (0, None),
    ]


def test_a_busy_node_that_falls_idle_after_the_window_leaves() -> None:
    policy = hold(window=2.0)
    state = after_a_peak(policy, taking(5), run_time=10.0)
    decision, state = policy.decide(seen(0, at=5.0, nodes=taking(2, idle=3)), state)
    assert decision.desired == 2


def test_a_window_above_the_run_time_counts_for_busy_nodes_too() -> None:
    policy, nodes = hold(window=60.0), taking(5)
    state = after_a_peak(policy, nodes, run_time=10.0)
    held = policy.decide(seen(0, at=59.0, nodes=nodes), state)[0]
    assert (held.desired, held.look_again_at) == (5, 60.0)
    assert policy.decide(seen(0, at=60.0, nodes=nodes), state)[0].desired == 0


def test_min_and_max_nodes_bound_the_fleet() -> None:
    fleet = Fleet(hold(min_nodes=2, max_nodes=4, window=0.0))
    assert [fleet.look(d, float(at)).desired for at, d in enumerate((0, 1, 61, 1000, 0))] == [
        2,
        2,
        4,
        4,
        2,
    ]


def test_a_buffer_comes_on_top_while_there_is_demand_and_never_exceeds_max_nodes() -> None:
    fleet = Fleet(hold(buffer_nodes=2, max_nodes=4, window=0.0))
    assert [fleet.look(d, float(at)).desired for at, d in enumerate((0, 1, 21, 41, 80))] == [
        0,
        3,
        4,
        4,
        4,
    ]


def test_a_reason_names_no_more_nodes_than_there_may_be() -> None:
    told = Fleet(hold(buffer_nodes=2, max_nodes=4)).look(61, 0.0).reason
    assert told == "61 inputs at 20 per node: 4 wanted"


def test_one_input_per_node_scales() -> None:
    fleet = Fleet(hold(target=1, max_nodes=8, window=0.0))
    assert [fleet.look(d, float(d)).desired for d in range(10)] == [*range(9), 8]


def test_starting_nodes_are_capacity() -> None:
    fleet = Fleet(hold(), cold_start=1000.0)
    for at in range(100):
        fleet.look(100, float(at))
    assert len(fleet.nodes) == 5


def test_an_unknown_backlog_holds_the_fleet_and_says_so() -> None:
    fleet = Fleet(hold(window=5.0))
    fleet.look(100, 0.0)
    held = fleet.look(None, 100.0)
    assert (held.desired, held.reason) == (5, "demand unknown: 5 held")
    # What was last known counted until now.
    assert fleet.look(0, 200.0).look_again_at == 205.0


def test_what_is_known_of_an_unknown_demand_makes_a_fleet_grow() -> None:
    fleet = Fleet(hold(window=5.0))
    fleet.look(100, 0.0)
    assert fleet.look(None, 1.0, known=100).desired == 5
    grown = fleet.look(None, 2.0, known=140)
    assert (grown.desired, grown.reason) == (7, "140 inputs or more at 20 per node: 7 wanted")
    assert fleet.look(None, 3.0, known=10**6).desired == hold().max_nodes
    # It was wanted until the demand is known again.
    assert fleet.look(0, 100.0).look_again_at == 105.0


@pytest.mark.parametrize("demand", [None, 0])
def test_a_fleet_that_is_met_for_the_first_time_is_kept_for_its_window(demand: int | None) -> None:
    policy = hold(window=60.0)
    nodes = (*ready(3), *starting(2))
    decision, state = policy.decide(seen(demand, at=7.0, nodes=nodes), policy.initial())
    assert decision.desired == 5
    after, _ = policy.decide(seen(0, at=67.0, nodes=nodes), state)
    assert after.desired == (0 if demand == 0 else 5)


@given(HOLDS, some.lists(some.integers(0, 500), min_size=1), some.integers(0, 30))
def test_what_is_met_is_kept_for_its_window_whatever_was_told_before_the_demand_was_known(
    policy: Hold, told: list[int], lived: int
) -> None:
    fleet = Fleet(policy)
    fleet.nodes = ready(lived)
    for at, known in enumerate(told):
        fleet.look(None, float(at), known=known)
    found = fleet.look(0, float(len(told)))
    assert found.desired >= (min(lived, policy.max_nodes) if policy.window else policy.min_nodes)


def test_the_reason_names_the_figures() -> None:
    fleet = Fleet(hold(buffer_nodes=1))
    assert fleet.look(101, 0.0).reason == "101 inputs at 20 per node, buffer_nodes=1: 7 wanted"
    assert fleet.look(1, 10.0).reason == (
        "1 input at 20 per node, buffer_nodes=1: 2 wanted, 7 held for 60 s"
    )


def test_limits_that_were_lowered_apply_to_what_is_held() -> None:
    fleet = Fleet(hold())
    fleet.look(1000, 0.0)
    fleet.policy = hold(max_nodes=3)
    assert fleet.look(0, 1.0).desired == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"target": 0}, "target=0 must be 1 or more"),
        ({"max_nodes": 0}, "max_nodes=0 must be 1 or more"),
        ({"min_nodes": -1}, "min_nodes=-1 must be 0 or more"),
        ({"min_nodes": 5, "max_nodes": 4}, r"min_nodes=5 must lie in 0\.\.max_nodes=4"),
        ({"buffer_nodes": -1}, "buffer_nodes=-1 must be 0 or more"),
        ({"window": -1.0}, r"window=-1\.0 must be a number of 0 or more"),
        ({"window": float("inf")}, "window=inf must be a number of 0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        hold(**given)


@given(HOLDS, DEMANDS)
def test_the_fleet_stays_within_its_bounds(
    policy: Hold, demands: list[tuple[float, int | None]]
) -> None:
    for decision in looked(policy, demands).decisions:
        assert policy.min_nodes <= decision.desired <= policy.max_nodes


@given(HOLDS, DEMANDS)
def test_an_unknown_backlog_never_shrinks_a_fleet(
    policy: Hold, demands: list[tuple[float, int | None]]
) -> None:
    decisions = looked(policy, demands).decisions
    for before, after, (_, demand) in zip(decisions, decisions[1:], demands[1:], strict=False):
        if demand is None:
            assert after.desired >= before.desired


@given(HOLDS, DEMANDS, some.data())
def test_more_demand_never_means_fewer_nodes(
    policy: Hold, demands: list[tuple[float, int | None]], data: some.DataObject
) -> None:
    more = [
        (after, None if demand is None else demand + data.draw(some.integers(0, 50)))
        for after, demand in demands
    ]
    for less, greater in zip(
        looked(policy, demands).decisions, looked(policy, more).decisions, strict=True
    ):
        assert greater.desired >= less.desired


@given(HOLDS, DEMANDS)
def test_it_is_the_maximum_of_what_was_wanted_in_the_window(
    policy: Hold, demands: list[tuple[float, int | None]]
) -> None:
    known = [(after, demand or 0) for after, demand in demands]
    now, wanted = 0.0, []
    for after, demand in known:
        now += after
        wanted.append((now, policy.decide(seen(demand), policy.initial())[0].desired))
    # Each want lasted until the next one; the last one lasts.
    ends = [begin for begin, _ in wanted[1:]]
    held = [want for (_, want), end in zip(wanted, ends, strict=False) if now < end + policy.window]
    assert looked(policy, [*known]).decisions[-1].desired == max([wanted[-1][1], *held])


@given(HOLDS, DEMANDS)
def test_it_remembers_no_more_peaks_than_nodes(
    policy: Hold, demands: list[tuple[float, int | None]]
) -> None:
    assert len(looked(policy, demands).state.peaks) <= policy.max_nodes


@given(HOLDS, DEMANDS)
def test_a_look_at_the_announced_instant_shrinks_the_fleet_and_an_earlier_one_does_not(
    policy: Hold, demands: list[tuple[float, int | None]]
) -> None:
    fleet = looked(policy, [*demands, (1.0, 0)])
    decision, state = fleet.decisions[-1], fleet.state
    if decision.look_again_at is None:
        return
    now = sum(after for after, _ in demands) + 1.0
    halfway = seen(0, at=(now + decision.look_again_at) / 2)
    assert policy.decide(halfway, state)[0].desired == decision.desired
    assert policy.decide(seen(0, at=decision.look_again_at), state)[0].desired < decision.desired


@given(
    HOLDS,
    some.lists(
        some.tuples(some.floats(0, 30), some.integers(0, 500), some.integers(0, 20)), min_size=1
    ),
)
# A time that a second's addition rounds away.
@example(Hold(target=2, max_nodes=2, window=1.0), [(1e-38, 0, 2), (1.0, 0, 2)])
def test_busy_nodes_add_to_a_fleet_at_most_themselves(
    policy: Hold, looks: list[tuple[float, int, int]]
) -> None:
    idle, taken = policy.initial(), policy.initial()
    now, finished = 0.0, 0
    for after, demand, busy in looks:
        now, finished = now + after, finished + busy
        told = Observation(now=now, backlog=demand, reserved=0, running=busy, finished=finished)
        without, idle = policy.decide(replace(told, nodes=ready(busy)), idle)
        decision, taken = policy.decide(replace(told, nodes=taking(busy)), taken)
        assert without.desired <= decision.desired <= max(without.desired, busy)
        assert (decision.look_again_at is None) or decision.look_again_at > now


@pytest.mark.parametrize("wave", WAVES)
@given(
    period=some.floats(2, 400),
    top=some.integers(1, 300),
    window=some.floats(0, 200),
    buffer=some.integers(0, 2),
)
def test_a_wave_turns_the_fleet_at_most_once_per_period(
    wave: str, period: float, top: int, window: float, buffer: int
) -> None:
    policy = hold(target=7, window=window, buffer_nodes=buffer)
    fleet, periods = Fleet(policy, cold_start=3.0), 4
    times = [period * periods * n / 400 for n in range(400)]
    desired = fleet.run(lambda at: WAVES[wave](at, period, top), times)
    assert turns(desired) <= periods
