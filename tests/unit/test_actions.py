"""Which nodes start, stop and drain for a wanted number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from celery_concurrent.autoscaler.actions import Actions, actions_for
from celery_concurrent.autoscaler.model import Node, NodeState
from tests.unit.fleets import node, ready, starting

FLEETS = some.lists(
    some.builds(
        Node,
        name=some.uuids().map(str),
        state=some.sampled_from(NodeState),
        since=some.floats(0, 1000),
        running=some.integers(0, 20),
    ),
    max_size=20,
    unique_by=lambda each: each.name,
)


def test_what_is_missing_starts_and_starting_nodes_are_not_missing() -> None:
    nodes = (*ready(2), *starting(1))
    assert actions_for(5, nodes) == Actions(start=2)
    assert actions_for(3, nodes) == Actions()


def test_draining_nodes_do_not_count_and_do_not_come_back() -> None:
    nodes = [node("d", NodeState.DRAINING), node("r")]
    assert actions_for(2, nodes) == Actions(start=1)
    assert actions_for(0, nodes) == Actions(drain=("r",))


def test_starting_nodes_go_first_the_youngest_of_them_before_the_others() -> None:
    nodes = [
        node("idle"),
        node("old", NodeState.STARTING, since=1.0),
        node("young", NodeState.STARTING, since=3.0),
        node("middle", NodeState.STARTING, since=2.0),
    ]
    assert actions_for(2, nodes) == Actions(cancel=("young", "middle"))
    assert actions_for(0, nodes) == Actions(cancel=("young", "middle", "old"), drain=("idle",))


def test_the_emptiest_nodes_drain_first() -> None:
    nodes = [node("full", running=8), node("idle"), node("busy", running=3)]
    assert actions_for(1, nodes) == Actions(drain=("idle", "busy"))


def test_of_nodes_that_are_equally_empty_the_youngest_drains() -> None:
    nodes = [node("old", since=1.0), node("young", since=2.0)]
    assert actions_for(1, nodes) == Actions(drain=("young",))


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_nodes_does_not_matter(order: int) -> None:
    nodes = [node(name, running=1) for name in "abcd"][::order]
    assert actions_for(2, nodes) == Actions(drain=("a", "b"))


@given(some.integers(0, 30), FLEETS)
def test_the_fleet_then_has_the_wanted_number_of_nodes(desired: int, nodes: list[Node]) -> None:
    actions = actions_for(desired, nodes)
    states = {each.name: each.state for each in nodes}
    live = sum(state is not NodeState.DRAINING for state in states.values())
    gone = [*actions.cancel, *actions.drain]
    assert live + actions.start - len(gone) == desired
    assert not (actions.start and gone)
    assert len(set(gone)) == len(gone)
    assert {states[name] for name in actions.cancel} <= {NodeState.STARTING}
    assert {states[name] for name in actions.drain} <= {NodeState.READY}


@given(some.integers(0, 30), FLEETS)
def test_no_node_drains_while_one_starts_nor_before_an_emptier_one(
    desired: int, nodes: list[Node]
) -> None:
    actions = actions_for(desired, nodes)
    if not actions.drain:
        return
    starting_ones = {each.name for each in nodes if each.state is NodeState.STARTING}
    assert set(actions.cancel) == starting_ones
    running = {each.name: each.running for each in nodes if each.state is NodeState.READY}
    left = [count for name, count in running.items() if name not in actions.drain]
    assert max(running[name] for name in actions.drain) <= min(left, default=10**9)
