"""What the demo counts."""

from __future__ import annotations

import pytest

from celery_concurrent.demo.fleet import Fleet, Node
from celery_concurrent.demo.measure import Ledger, percentile, steps


def fleet(*states: str) -> Fleet:
    nodes = (Node(name=f"n{i}", state=s, running=0, device="-") for i, s in enumerate(states))
    return Fleet(nodes=tuple(nodes))


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None


def test_steps_count_open_intervals() -> None:
    assert steps([1.0, 2.0], [3.0, 4.0]) == ([0.0, 1.0, 2.0, 3.0, 4.0], [0, 1, 2, 1, 0])


def test_slot_handed_on_at_one_instant_is_one_slot() -> None:
    assert steps([1.0, 2.0], [2.0, 3.0]) == ([0.0, 1.0, 2.0, 3.0], [0, 1, 1, 0])


def test_steps_begin_at_zero_even_if_something_began_there() -> None:
    assert steps([0.0], [1.0]) == ([0.0, 1.0], [1, 0])


def test_waits_count_from_the_publishing_and_its_lateness_by_itself() -> None:
    ledger = Ledger(total=2)
    ledger.publish("a", due=1.0, now=1.5)
    ledger.settle("a", started=2.0, ended=4.0)
    (outcome,) = ledger.outcomes
    assert (outcome.latency, outcome.wait) == (2.5, 0.5)
    assert ledger.latest_publishing == 0.5


def test_input_settles_once() -> None:
    ledger = Ledger(total=1)
    ledger.publish("a", due=0.0, now=0.0)
    ledger.settle("a", started=0.0, ended=1.0)
    with pytest.raises(KeyError):
        ledger.settle("a", started=0.0, ended=1.0)


def test_failed_input_is_finished_and_has_no_latency() -> None:
    ledger = Ledger(total=1)
    ledger.publish("a", due=0.0, now=0.0)
    ledger.settle("a", error="boom")
    assert (ledger.finished, ledger.failed, ledger.outstanding) == (1, 1, {})
    assert (ledger.latencies, ledger.waits) == ([], [])


def test_node_seconds_are_those_of_all_nodes_whatever_their_state() -> None:
    ledger = Ledger(total=0)
    for at, seen in (
        (0.0, fleet("ready")),
        (1.0, fleet("ready", "starting", "draining")),
        (1.5, fleet("ready", "ready")),
        (3.5, fleet("ready", "ready", "ready")),
    ):
        ledger.snapshot(elapsed=at, fleet=seen)
    assert ledger.node_seconds == pytest.approx(1 * 1.0 + 3 * 0.5 + 2 * 2.0)
    assert ledger.seconds == 3.5


def test_draining_nodes_are_no_part_of_a_fleets_size() -> None:
    ledger = Ledger(total=0)
    ledger.snapshot(elapsed=0.0, fleet=fleet("ready", "starting"))
    ledger.snapshot(elapsed=1.0, fleet=fleet("ready", "draining", "draining"))
    assert ledger.fewest_and_most_nodes == (1, 2)


def test_busiest_counts_each_node_by_itself() -> None:
    ledger = Ledger(total=4)
    for name, node, started in (("a", "x", 0.0), ("b", "x", 1.0), ("c", "y", 1.0), ("d", "x", 2.0)):
        ledger.publish(name, due=0.0, now=0.0)
        ledger.settle(name, node=node, started=started, ended=started + 2.0)
    assert ledger.busiest == 2


def test_snapshot_separates_recent_from_all() -> None:
    ledger = Ledger(total=3)
    for name, started, ended in (("old", 1.5, 2.0), ("new", 4.0, 9.0)):
        ledger.publish(name, due=1.0, now=1.0)
        ledger.settle(name, started=started, ended=ended)
    snapshot = ledger.snapshot(elapsed=10.0, fleet=Fleet(demand=1))
    assert snapshot.recent_waits == (3.0,)
    assert snapshot.waits == (0.5, 3.0)
    assert snapshot.recent_latencies == (8.0,)
    assert snapshot.latencies == (1.0, 8.0)
    assert snapshot.recent_throughput == pytest.approx(0.2)
    assert snapshot.throughput == pytest.approx(0.2)


def test_first_snapshot_divides_by_nothing() -> None:
    snapshot = Ledger(total=1).snapshot(elapsed=0.0, fleet=Fleet())
    assert (snapshot.throughput, snapshot.recent_throughput) == (0.0, 0.0)
