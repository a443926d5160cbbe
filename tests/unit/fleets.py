"""Fleets in simulated time, for the tests of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from celery_concurrent.autoscaler.actions import actions_for
from celery_concurrent.autoscaler.model import AnyPolicy, Decision, Node, NodeState, Observation


def node(
    name: str,
    state: NodeState = NodeState.READY,
    *,
    since: float = 0.0,
    running: int = 0,
    adopted: bool = False,
) -> Node:
    return Node(name=name, state=state, since=since, running=running, adopted=adopted)


def starting(count: int, *, since: float = 0.0) -> tuple[Node, ...]:
    return tuple(node(f"s{n}", NodeState.STARTING, since=since) for n in range(count))


def ready(count: int, *, since: float = 0.0) -> tuple[Node, ...]:
    return tuple(node(f"r{n}", since=since) for n in range(count))


def seen(
    demand: int | None,
    *,
    at: float = 0.0,
    nodes: Iterable[Node] = (),
    running: int = 0,
    known: int = 0,
) -> Observation:
    """A fleet with this demand; None for a broker, or a node, that does not answer."""
    return Observation(
        now=at,
        backlog=None if demand is None else demand - running,
        reserved=0,
        running=running,
        nodes=tuple(nodes),
        known=known,
    )


class Fleet:
    """A policy in the loop of a fleet whose nodes obey, each ``cold_start`` after its order.

    The demand is given, whatever the nodes do.
    """

    def __init__(self, policy: AnyPolicy, *, cold_start: float = 0.0) -> None:
        self.policy = policy
        self.state = policy.initial()
        self.nodes: tuple[Node, ...] = ()
        self.decisions: list[Decision] = []
        self._cold_start = cold_start
        self._started = 0

    def look(self, demand: int | None, at: float, *, known: int = 0) -> Decision:
        self.nodes = tuple(
            replace(each, state=NodeState.READY, since=each.since + self._cold_start)
            if each.state is NodeState.STARTING and at >= each.since + self._cold_start
            else each
            for each in self.nodes
        )
        held = 0 if demand is None else min(demand, 10 * len(self.nodes))
        observation = seen(demand, at=at, nodes=self.nodes, running=held, known=known)
        decision, self.state = self.policy.decide(observation, self.state)
        self.decisions.append(decision)
        self._obey(decision, at)
        return decision

    def run(self, demand: Callable[[float], int], times: Sequence[float]) -> list[int]:
        """What was desired at these times."""
        return [self.look(demand(at), at).desired for at in times]

    def _obey(self, decision: Decision, at: float) -> None:
        actions = actions_for(decision.desired, self.nodes)
        gone = {*actions.cancel, *actions.drain}
        kept = tuple(each for each in self.nodes if each.name not in gone)
        new = range(self._started, self._started + actions.start)
        self._started += actions.start
        self.nodes = (*kept, *(node(f"n{n}", NodeState.STARTING, since=at) for n in new))


class Recorded:
    """A policy whose observations, decisions and states are kept."""

    def __init__(self, policy: AnyPolicy) -> None:
        self.policy = policy
        self.observations: list[Observation] = []
        self.decisions: list[Decision] = []
        self.states: list[Any] = []

    def initial(self) -> Any:
        return self.policy.initial()

    def decide(self, observation: Observation, state: Any) -> tuple[Decision, Any]:
        decision, state = self.policy.decide(observation, state)
        self.observations.append(observation)
        self.decisions.append(decision)
        self.states.append(state)
        return decision, state


def turns(desired: Sequence[int]) -> int:
    """How often a fleet that had grown shrank."""
    found, rising = 0, False
    for before, after in pairwise(desired):
        if after > before:
            rising = True
        elif after < before and rising:
            found, rising = found + 1, False
    return found


#: A demand over time with a period: high for half of it; rising to the top and falling to
#: zero; a short spike and nothing.
WAVES: dict[str, Callable[[float, float, int], int]] = {
    "square": lambda at, period, top: top if at % period < period / 2 else 0,
    "sawtooth": lambda at, period, top: int(top * (at % period) / period),
    "spikes": lambda at, period, top: top if at % period < min(2.0, period / 10) else 0,
}
