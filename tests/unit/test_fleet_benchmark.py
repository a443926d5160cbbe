"""The peers' rules in the fleets' benchmark, and how costs are compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.fleet.peers import Bounds, KedaHpa, KnativeKpa, ModalRule, RayServe
from benchmarks.fleet.ratios import SAME_PRICE, cost_at, ratios
from benchmarks.fleet.replay import (
    PEERS,
    TRACES,
    Case,
    Contender,
    Outcome,
    Run,
    arrivals,
    contenders,
    measure,
    policy,
)
from celery_concurrent.autoscaler.breakeven import BreakEven
from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.model import NodeState, Observation
from celery_concurrent.autoscaler.replay import Arrival, Engine
from celery_concurrent.autoscaler.simulate import simulate
from tests.unit.fleets import Recorded, node, ready, seen

BOUNDS = Bounds(target=4, max_inputs=5, max_nodes=64)


def desired(rule: Any, demands: list[int], *, every: float) -> list[int]:
    """What a rule wants at each of its ticks, when its nodes are ready at once."""
    state, nodes, found = rule.initial(), 0, []
    for tick, demand in enumerate(demands):
        observation = seen(demand, at=tick * every, nodes=ready(nodes))
        decision, state = rule.decide(observation, state)
        nodes = decision.desired
        found.append(nodes)
    return found


def test_modals_rule_removes_only_nodes_that_were_idle_for_the_window() -> None:
    rule = ModalRule(bounds=BOUNDS, window=60.0)
    nodes = [node("busy", running=1), node("idle"), node("idler")]
    at = Observation(now=0.0, backlog=0, reserved=0, running=1, nodes=tuple(nodes))
    decision, state = rule.decide(at, rule.initial())
    assert (decision.desired, decision.look_again_at) == (3, 60.0)
    # One of the idle ones got an input, and lost it again: its time begins anew.
    nodes[1] = replace(nodes[1], running=1)
    _, state = rule.decide(replace(at, now=30.0, running=2, nodes=tuple(nodes)), state)
    nodes[1] = replace(nodes[1], running=0)
    _, state = rule.decide(replace(at, now=31.0, nodes=tuple(nodes)), state)
    decision, _ = rule.decide(replace(at, now=60.0, nodes=tuple(nodes)), state)
    assert (decision.desired, decision.look_again_at) == (2, 91.0)


def test_ray_serve_waits_with_every_change_and_starts_one_node_at_once() -> None:
    found = desired(RayServe(bounds=BOUNDS), [40] * 60 + [0] * 700, every=1.0)
    assert found[0] == 1
    assert found[29] == 1
    assert found[40] == 10
    assert found.index(0) > 600


def test_knative_panics_and_does_not_shrink_while_it_does() -> None:
    rule = KnativeKpa(bounds=BOUNDS)
    found = desired(rule, [1] * 60 + [35] * 8 + [0] * 150, every=1.0)
    assert found[59] == 1
    assert max(found[60:68]) == 10
    assert min(found[68:120]) == 10
    assert found[-1] == 0


def test_keda_doubles_per_tick_and_keeps_the_peak_of_five_minutes() -> None:
    found = desired(KedaHpa(bounds=BOUNDS), [200] * 6 + [4] * 30, every=15.0)
    assert found[:6] == [1, 5, 10, 20, 40, 50]
    assert found[6:25] == [50] * 19
    assert found[-1] == 1


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_serves_a_trace_within_its_bounds(peer: Any) -> None:
    rule, every = policy(peer, BOUNDS)
    recorded = Recorded(rule)
    steady = [Arrival(at=n / 5, seconds=10.0) for n in range(2000)]
    replay = simulate(
        recorded, steady, Engine(target=4, max_inputs=5, cold_start=20.0), every=every
    )
    assert max(replay.waits) < 120.0
    assert all(0 <= decision.desired <= 64 for decision in recorded.decisions)
    assert any(
        each.state is NodeState.READY for seen in recorded.observations for each in seen.nodes
    )


def test_a_cost_between_two_settings_is_on_the_line_between_them() -> None:
    points = [(0.8, 100.0), (1.0, 200.0), (0.9, 400.0)]
    assert cost_at(0.9, points) == pytest.approx(150.0)
    assert cost_at(0.5, points) == 100.0
    assert cost_at(1.0, points) == 200.0
    assert cost_at(1.1, points) is None


def test_ratios_are_geometric_means_over_the_cases() -> None:
    outcomes = {}
    for number, trace in enumerate(("a", "b")):
        for contender in contenders():
            ours = contender.rule == "break-even"
            outcomes[Case(trace=trace, cold_start=5.0), contender] = Outcome(
                node_seconds=(1.0 if ours else 2.0) * (1 + 3 * number * ours),
                p50=0.0,
                p90=0.0,
                p99=0.0,
                within_1=1.0,
                within_10=1.0,
                peak=1,
            )
    first = ratios(outcomes)[0]
    assert first.values == (0.5, 2.0)
    assert first.mean == pytest.approx(1.0)
    assert first.worst == 2.0


def test_kedas_target_is_moved_until_it_serves_what_break_even_does() -> None:
    def outcome(contender: Contender) -> Outcome:
        knob = contender.knob or 1.0
        ours = contender.rule == "break-even"
        cost, share = (30.0, 0.9) if ours else (100.0 / knob, 1 - knob / 4)
        return Outcome(
            node_seconds=cost, p50=0.0, p90=0.0, p99=0.0, within_1=0.5, within_10=share, peak=1
        )

    case = Case(trace="a", cold_start=5.0)
    found = ratios({(case, contender): outcome(contender) for contender in contenders()})
    moved = next(ratio for ratio in found if ratio.how == SAME_PRICE)
    # 0.9 lies between the targets 0.35 and 0.5, a third of the way.
    assert moved.values[0] == pytest.approx(30.0 / (100 / 0.5 + (100 / 0.35 - 100 / 0.5) * 2 / 3))


def test_the_shipped_traces_are_whole() -> None:
    assert [len(arrivals(trace)) for trace in TRACES] == [8819, 19366, 12031]


def test_a_cell_is_measured_from_a_checkout() -> None:
    run = Run(case=Case(trace="azure2023_code", cold_start=5.0), contender=PEERS[3], bounds=BOUNDS)
    outcome = measure(run)
    assert outcome.node_seconds > 0
    assert 0 <= outcome.within_1 <= outcome.within_10 <= 1


def test_hold_without_a_window_costs_no_more_than_modals_rule() -> None:
    bursts = arrivals("azure2023_code")[:1000]
    engine = Engine(target=4, max_inputs=5, cold_start=20.0)
    hold = simulate(Hold(target=4, max_nodes=64, window=0.0), bursts, engine)
    modal = simulate(ModalRule(bounds=BOUNDS, window=0.0), bursts, engine)
    assert hold.node_seconds < modal.node_seconds


def test_break_even_is_told_both_limits_of_a_node() -> None:
    rule, _ = policy(Contender(rule="break-even", knob=3.0), BOUNDS)
    assert rule == BreakEven(target=4, max_inputs=5, max_nodes=64, price=3.0)
