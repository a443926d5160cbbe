"""Break-even layers: what is ordered, what is kept and for how long, what is learned."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from celery_concurrent import ConfigurationError
from celery_concurrent.autoscaler.breakeven import BreakEven, BreakEvenState, Layer
from celery_concurrent.autoscaler.learned import Learned, learn
from celery_concurrent.autoscaler.model import NodeState, Observation
from celery_concurrent.autoscaler.replay import Arrival, Engine
from celery_concurrent.autoscaler.simulate import simulate
from tests.unit.fleets import WAVES, Fleet, Recorded, node, ready, seen, starting, turns


def break_even(**given: Any) -> BreakEven:
    return BreakEven(**{"target": 4, "max_nodes": 64, **given})


def knowing(*, run_time: float, cold_start: float, **state: Any) -> BreakEvenState:
    """A state that has learned these."""
    learned = Learned(cold_start=cold_start, seen=True, busy=run_time * 100, done=100.0)
    return BreakEvenState(**{"learned": learned, "need": 0, **state})


POLICIES = some.builds(
    lambda target, burst, least, more, buffer, price, cold_start: BreakEven(
        target=target,
        max_inputs=target + burst,
        min_nodes=least,
        max_nodes=least + more,
        buffer_nodes=buffer,
        price=price,
        cold_start=cold_start,
    ),
    some.integers(1, 30),
    some.integers(0, 10),
    some.integers(0, 5),
    some.integers(1, 20),
    some.integers(0, 5),
    some.floats(0, 100),
    some.floats(0, 100),
)
DEMANDS = some.lists(
    some.tuples(some.floats(0, 30), some.none() | some.integers(0, 500)), min_size=1, max_size=40
)


def looked(policy: BreakEven, demands: list[tuple[float, int | None]]) -> Fleet:
    fleet, now = Fleet(policy, cold_start=7.0), 0.0
    for after, demand in demands:
        now += after
        fleet.look(demand, now)
    return fleet


# Order


def test_before_anything_is_known_each_input_gets_its_place() -> None:
    assert Fleet(break_even()).look(17, 0.0).desired == 5


def test_the_order_is_thinned_when_the_work_is_much_shorter_than_a_start() -> None:
    policy = break_even(price=3.0)
    state = knowing(run_time=0.5, cold_start=20.0)
    # 100 x sqrt(3 x 0.5 / (2 x 4 x 20)) = 9.7, of 25 places
    assert policy.decide(seen(100), state)[0].desired == 10


def test_the_order_is_not_thinned_when_the_work_is_long() -> None:
    state = knowing(run_time=60.0, cold_start=5.0)
    assert break_even().decide(seen(100), state)[0].desired == 25


def test_only_what_ready_nodes_do_not_hold_is_ordered() -> None:
    state = knowing(run_time=60.0, cold_start=5.0, need=3)
    nodes = (*ready(3), *starting(2))
    assert break_even().decide(seen(12, nodes=nodes), state)[0].desired == 3
    assert break_even().decide(seen(20, nodes=nodes), state)[0].desired == 5
    assert break_even().decide(seen(21, nodes=nodes), state)[0].desired == 6


def test_at_least_one_node_is_ordered_however_cheap_waiting_is() -> None:
    state = knowing(run_time=0.01, cold_start=600.0)
    assert break_even(price=0.0).decide(seen(1), state)[0].desired == 1


def test_a_thinned_order_does_not_cancel_starting_nodes_that_are_needed() -> None:
    state = knowing(run_time=0.5, cold_start=20.0)
    assert break_even().decide(seen(100, nodes=starting(20)), state)[0].desired == 20


def test_one_input_per_node_scales() -> None:
    fleet = Fleet(break_even(target=1, max_nodes=8))
    assert [fleet.look(d, 0.0).desired for d in range(10)] == [*range(9), 8]


# Hold and release


def known_layers(*layers: Layer) -> dict[str, Any]:
    return {"layers": layers, "need": len(layers), "desired": len(layers)}


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (Layer(spared=0.0, lasting=1.0), 20.0),
        (Layer(spared=5.0, lasting=1.0), 35.0),
        (Layer(spared=5.0, lasting=0.0), 15.0),
        (Layer(spared=0.0, lasting=0.5), 10.0),
    ],
)
def test_a_layer_is_kept_for_what_a_miss_would_cost(layer: Layer, kept: float) -> None:
    policy = break_even(price=3.0)
    state = knowing(run_time=1.0, cold_start=20.0, **known_layers(layer))
    decision, state = policy.decide(seen(0, nodes=ready(1)), state)
    assert (decision.desired, decision.look_again_at) == (1, kept)
    assert policy.decide(seen(0, at=kept - 0.1, nodes=ready(1)), state)[0].desired == 1
    gone = policy.decide(seen(0, at=kept, nodes=ready(1)), state)[0]
    assert (gone.desired, gone.look_again_at) == (0, None)


@pytest.mark.parametrize(("run_time", "kept"), [(10.0, 20.0), (30.0, 30.0), (600.0, 40.0)])
def test_a_layer_is_kept_for_a_run_time_but_for_that_not_longer_than_two_starts(
    run_time: float, kept: float
) -> None:
    state = knowing(run_time=run_time, cold_start=20.0, **known_layers(Layer()))
    decision, _ = break_even().decide(seen(0, nodes=ready(1)), state)
    assert (decision.desired, decision.look_again_at) == (1, kept)


def test_layers_leave_from_the_top_as_their_times_end() -> None:
    layers = (Layer(spared=10.0), Layer(spared=5.0), Layer(spared=0.0))
    policy = break_even(price=3.0)
    _, state = policy.decide(
        seen(0, nodes=ready(3)), knowing(run_time=1.0, cold_start=20.0, **known_layers(*layers))
    )
    times = (19.0, 20.0, 34.0, 35.0, 49.0, 50.0)
    assert [policy.decide(seen(0, at=at, nodes=ready(3)), state)[0].desired for at in times] == [
        3,
        2,
        2,
        1,
        1,
        0,
    ]


def test_holding_never_starts_a_node() -> None:
    state = knowing(run_time=1.0, cold_start=20.0, **known_layers(Layer(), Layer(), Layer()))
    assert break_even().decide(seen(0, nodes=ready(1)), state)[0].desired == 1


def test_a_fleet_that_is_met_for_the_first_time_is_kept_for_a_cold_start() -> None:
    policy = break_even(cold_start=20.0)
    decision, _ = policy.decide(seen(0, at=7.0, nodes=ready(3)), policy.initial())
    assert (decision.desired, decision.look_again_at) == (3, 27.0)


@given(some.lists(some.integers(0, 500), min_size=1), some.integers(0, 80))
def test_what_is_met_is_kept_whatever_was_told_before_the_demand_was_known(
    told: list[int], lived: int
) -> None:
    fleet = Fleet(break_even(cold_start=20.0))
    fleet.nodes = ready(lived)
    for at, known in enumerate(told):
        fleet.look(None, float(at), known=known)
    found = fleet.look(0, float(len(told)))
    assert found.desired >= min(lived, 64)


def test_a_buffer_stays_while_its_fleet_does_and_never_exceeds_max_nodes() -> None:
    fleet = Fleet(break_even(buffer_nodes=2, max_nodes=4, cold_start=20.0, price=0.0))
    desired = [fleet.look(d, at).desired for at, d in ((0.0, 0), (1.0, 1), (2.0, 16), (3.0, 0))]
    assert desired == [0, 3, 4, 4]
    assert fleet.look(0, 22.9).desired >= 3
    assert fleet.look(0, 30.0).desired == 0


def test_a_buffer_is_beside_what_the_demand_needs() -> None:
    fleet = Fleet(break_even(buffer_nodes=1))
    assert [fleet.look(d, float(d)).desired for d in (1, 4, 5, 8, 9)] == [2, 2, 3, 3, 4]


def test_an_unknown_backlog_holds_the_fleet_and_says_so() -> None:
    fleet = Fleet(break_even())
    fleet.look(17, 0.0)
    held = fleet.look(None, 1000.0)
    assert (held.desired, held.reason) == (5, "demand unknown: 5 held")


def test_what_is_known_of_an_unknown_demand_makes_a_fleet_grow() -> None:
    fleet = Fleet(break_even())
    fleet.look(17, 0.0)
    assert fleet.look(None, 1.0, known=25).desired == 7
    assert fleet.look(None, 2.0, known=10**6).desired == break_even().max_nodes


# What is learned


def test_the_first_cold_start_replaces_the_guess_and_later_ones_err_high() -> None:
    learned = Learned(cold_start=100.0)
    for took, expected in ((10.0, 10.0), (20.0, 15.0), (10.0, 14.5)):
        learned, _ = learn(seen(1, nodes=[node("a", NodeState.STARTING, since=5.0)]), learned)
        learned, _ = learn(seen(1, at=90.0, nodes=[node("a", since=5.0 + took)]), learned)
        assert learned.cold_start == pytest.approx(expected)


def test_from_an_adoption_to_the_first_word_is_no_cold_start() -> None:
    learned = Learned(cold_start=20.0)
    silent = node("a", NodeState.STARTING, adopted=True)
    for found in (silent, node("a", since=0.3, adopted=True)):
        learned, _ = learn(seen(0, nodes=[found]), learned)
    assert (learned.cold_start, learned.seen) == (20.0, False)


def test_the_run_time_is_what_ran_over_what_ended() -> None:
    policy = Recorded(break_even())
    arrivals = [Arrival(at=float(n), seconds=2.5) for n in range(100)]
    simulate(policy, arrivals, Engine(target=4, max_inputs=4, cold_start=7.0))
    assert policy.states[-1].learned.run_time == pytest.approx(2.5)
    assert policy.states[-1].learned.cold_start == pytest.approx(7.0)


def test_old_run_times_are_forgotten() -> None:
    learned, now, done = Learned(cold_start=1.0), 0.0, 0
    for run_time in (10.0, 1.0):
        for _ in range(1500):
            learned, _ = learn(
                Observation(now=now, backlog=0, reserved=0, running=1, arrived=0, finished=done),
                learned,
            )
            now, done = now + run_time, done + 1
    assert learned.run_time == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after", "came"),
    [
        # demand, arrived, finished
        ((10, 100, 90), (12, 105, 93), 5),
        ((10, None, 90), (12, None, 93), 5),
        ((10, None, None), (12, None, None), 2),
        ((10, None, None), (7, None, None), 0),
        # A counter that began anew tells nothing.
        ((10, 100, None), (12, 3, None), 2),
        ((None, None, None), (12, None, None), 0),
    ],
)
def test_arrivals_are_counted_or_seen_in_the_demand(before: Any, after: Any, came: int) -> None:
    learned = Learned(cold_start=1.0)
    found = -1
    for at, (backlog, arrived, finished) in enumerate((before, after)):
        learned, found = learn(
            Observation(
                now=float(at),
                backlog=backlog,
                reserved=0,
                running=0,
                arrived=arrived,
                finished=finished,
            ),
            learned,
        )
    assert found == came


def test_a_layer_without_which_everything_waits_is_kept_for_longer_each_time() -> None:
    policy = break_even(price=3.0)
    state = knowing(run_time=1.0, cold_start=20.0)
    spared = []
    for burst in range(3):
        for at in (0.0, 10.0, 20.0):
            _, state = policy.decide(seen(1, at=100.0 * burst + at, nodes=ready(1)), state)
        _, state = policy.decide(seen(0, at=100.0 * burst + 21.0, nodes=ready(1)), state)
        spared.append(state.layers[0].spared)
    # One input would wait for the whole of a start; 0.3 of what is new counts.
    assert spared[0] == pytest.approx(0.3 * 20.0)
    assert spared == sorted(spared)
    assert state.layers[0].lasting == 1.0


def test_a_layer_whose_queue_would_clear_by_itself_is_hardly_kept() -> None:
    policy = break_even(price=3.0)
    state = knowing(run_time=0.1, cold_start=20.0, need=1, layers=(Layer(),), desired=2)
    now = 0.0
    for _ in range(20):
        for demand, after in ((5, 0.1), (4, 29.9)):
            _, state = policy.decide(seen(demand, at=now, nodes=ready(2)), state)
            now += after
    assert state.layers[1].lasting < 0.01
    assert state.layers[1].spared < 0.1


def test_waiting_after_a_cold_start_does_not_count_as_spared() -> None:
    policy = break_even(price=3.0)
    state = knowing(run_time=1.0, cold_start=20.0)
    _, state = policy.decide(seen(1, nodes=ready(1)), state)
    _, state = policy.decide(seen(1, at=1000.0, nodes=ready(1)), state)
    assert state.layers[0].spared <= 0.3 * 20.0 + 1e-9


@pytest.mark.parametrize(
    ("max_inputs", "spared"), [(None, 0.3 * 20.0 * 3), (7, 0.3 * 20.0), (8, 0)]
)
def test_an_input_that_has_a_slot_does_not_wait(max_inputs: int | None, spared: float) -> None:
    policy = break_even(max_inputs=max_inputs)
    # Inputs that hardly end: what one node has no slot for waits for the whole of a start.
    layers = (Layer(), Layer())
    state = knowing(run_time=1e9, cold_start=20.0, layers=layers, need=1, desired=1)
    for at in (0.0, 20.0):
        _, state = policy.decide(seen(7 if max_inputs is None else 8, at=at, nodes=ready(1)), state)
    assert state.layers[1].spared == pytest.approx(spared, rel=1e-3)
    assert state.layers[1].lasting == 1.0


# Properties


@given(POLICIES, DEMANDS)
def test_the_fleet_stays_within_its_bounds(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    for decision in looked(policy, demands).decisions:
        assert policy.min_nodes <= decision.desired <= policy.max_nodes


@given(POLICIES, DEMANDS)
def test_an_unknown_backlog_never_shrinks_a_fleet(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    decisions = looked(policy, demands).decisions
    for before, after, (_, demand) in zip(decisions, decisions[1:], demands[1:], strict=False):
        if demand is None:
            assert after.desired >= before.desired


@given(POLICIES, DEMANDS)
def test_there_is_a_node_while_there_is_an_input(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    fleet = looked(policy, demands)
    for decision, (_, demand) in zip(fleet.decisions, demands, strict=True):
        assert decision.desired >= 1 or not demand


@given(POLICIES, DEMANDS)
def test_its_state_is_finite_numbers_and_no_more_layers_than_nodes(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    state = looked(policy, demands).state
    assert len(state.layers) <= policy.max_nodes
    assert len(state.trials) <= policy.max_nodes
    for layer in state.layers:
        assert 0 <= layer.spared < math.inf
        assert 0 <= layer.lasting <= 1
    assert 0 <= state.learned.cold_start < math.inf


@given(POLICIES, DEMANDS)
def test_a_layer_for_whose_inputs_the_others_always_had_slots_spares_nothing(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    known = [demand for _, demand in demands if demand is not None]
    came = sum(max(0, after - before) for before, after in pairwise([0, *known]))
    for index, layer in enumerate(looked(policy, demands).state.layers):
        if came <= index * (policy.max_inputs or policy.target):
            assert layer.spared == 0


@given(POLICIES, DEMANDS)
def test_an_idle_fleet_comes_down_by_the_announced_looks_alone(
    policy: BreakEven, demands: list[tuple[float, int | None]]
) -> None:
    fleet = looked(policy, [*demands, (1.0, 0)])
    # One look for each layer, and one more where a trial that ended meanwhile told to keep it.
    for _ in range(2 * policy.max_nodes + 1):
        again = fleet.decisions[-1].look_again_at
        if again is None:
            break
        fleet.look(0, again)
    assert fleet.decisions[-1].desired == policy.min_nodes


@pytest.mark.parametrize("wave", WAVES)
@given(
    period=some.floats(2, 400),
    top=some.integers(1, 200),
    price=some.floats(0, 30),
    cold_start=some.floats(0, 60),
    buffer=some.integers(0, 2),
)
def test_a_wave_turns_the_fleet_at_most_once_per_period(
    wave: str, period: float, top: int, price: float, cold_start: float, buffer: int
) -> None:
    policy = break_even(price=price, cold_start=cold_start, buffer_nodes=buffer)
    fleet, periods = Fleet(policy, cold_start=cold_start), 4
    times = [period * periods * n / 200 for n in range(200)]
    desired = fleet.run(lambda at: WAVES[wave](at, period, top), times)
    assert turns(desired) <= periods


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"price": -1.0}, r"price=-1\.0 must be a number of 0 or more"),
        ({"price": math.nan}, "price=nan must be a number of 0 or more"),
        ({"cold_start": math.inf}, "cold_start=inf must be a number of 0 or more"),
        ({"target": 0}, "target=0 must be 1 or more"),
        ({"max_inputs": 3}, r"target=4 must lie in 1\.\.max_inputs=3"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        break_even(**given)


@pytest.mark.timing
def test_a_decision_takes_less_than_a_tenth_of_a_millisecond() -> None:
    policy = break_even()
    arrivals = [Arrival(at=n * 0.2 + (n % 7), seconds=11.0) for n in range(5000)]
    arrivals.sort(key=lambda arrival: arrival.at)
    began = time.process_time()
    replay = simulate(policy, arrivals, Engine(target=4, max_inputs=5, cold_start=20.0))
    # With all that the replay does around it.
    assert (time.process_time() - began) / replay.decisions < 100e-6
