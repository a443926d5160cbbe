"""The peers' rules, as policies: what other autoscalers would have decided.

Each follows its documents and sources, with the documented defaults; what users turn there is a
field here. All of them get better signals than they would in real life: the total demand, at
once, with nothing lost. ``every`` is their tick in seconds; None for a look at every event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from celery_concurrent.autoscaler.actions import actions_for
from celery_concurrent.autoscaler.model import Decision, NodeState, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What every rule is told: inputs per node aimed at, hard limit per node, most nodes."""

    target: int
    max_inputs: int
    max_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalRule:
    """Modal's rule, as its documents tell it.

    A node starts at once when there are more inputs than the live nodes hold at target, plus
    ``buffer`` while there are inputs; a node that had no input for ``window`` seconds leaves.
    """

    every: ClassVar[float | None] = None
    bounds: Bounds
    window: float = 60.0
    buffer: int = 0

    def initial(self) -> dict[str, float]:
        """Since when which ready node is idle."""
        return {}

    def decide(
        self, observation: Observation, state: dict[str, float]
    ) -> tuple[Decision, dict[str, float]]:
        now, demand = observation.now, observation.demand or 0
        idle = {
            node.name: state.get(node.name, now)
            for node in observation.nodes
            if node.state is NodeState.READY and node.running == 0
        }
        wanted = math.ceil(demand / self.bounds.target) + (self.buffer if demand else 0)
        desired = min(self.bounds.max_nodes, wanted)
        live = observation.live
        if desired < live:
            expired = sum(now >= since + self.window for since in idle.values())
            desired = max(desired, live - expired)
            idle = _handed_on(idle, actions_for(desired, observation.nodes).drain)
        again = min((since + self.window for since in idle.values()), default=None)
        # A node that is kept for the demand's sake is looked at when the demand changes.
        if again is not None and again <= now:
            again = None
        return Decision(desired=desired, reason="Modal's rule", look_again_at=again), idle


def _handed_on(idle: dict[str, float], drained: Iterable[str]) -> dict[str, float]:
    """The idle nodes that stay, when it is those idle for the longest that leave.

    Empty nodes are all alike: who stays takes over the shorter times.
    """
    staying = [name for name in idle if name not in set(drained)]
    newest = sorted(idle.values())[len(idle) - len(staying) :]
    return dict(zip(staying, newest, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A series of (time, value), oldest first, and what its rule remembers besides."""

    seen: tuple[tuple[float, float], ...] = ()
    target: int = 0
    counter: int = 0
    panic_until: float = -math.inf
    panic_nodes: int = 0
    active: float = -math.inf
    ups: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RayServe:
    """Ray Serve 2.60, its default policy for replicas.

    ceil(ongoing and queued requests, averaged over ``look_back`` seconds of reports that come
    every ``report`` seconds, / target); applied upwards after it was above the target number of
    replicas for ``upscale_delay`` seconds of its 1 s loop, downwards after ``downscale_delay``;
    from zero at least one at once.
    """

    every: ClassVar[float | None] = 1.0
    bounds: Bounds
    target: float | None = None
    look_back: float = 30.0
    report: float = 10.0
    upscale_delay: float = 30.0
    downscale_delay: float = 600.0

    def initial(self) -> Samples:
        return Samples()

    def decide(self, observation: Observation, state: Samples) -> tuple[Decision, Samples]:
        now, demand = observation.now, observation.demand or 0
        seen = state.seen
        if not seen or now >= seen[-1][0] + self.report:
            seen = _within(seen, now - self.look_back, (now, demand))
        if state.target == 0:
            # The handle reports at once what finds no replica.
            wished, delay = min(1, demand), 0.0
        else:
            average = sum(value for _, value in seen) / len(seen)
            wished = min(
                self.bounds.max_nodes, math.ceil(average / (self.target or self.bounds.target))
            )
            delay = self.upscale_delay if wished > state.target else self.downscale_delay
        sign = (wished > state.target) - (wished < state.target)
        # A wish that changes its direction begins anew.
        counter = state.counter + sign if sign * state.counter >= 0 and sign else sign
        target = state.target
        if sign and abs(counter) > delay:
            target, counter = wished, 0
        state = replace(state, seen=seen, target=target, counter=counter)
        return Decision(desired=target, reason="Ray Serve"), state


@dataclass(frozen=True, slots=True, kw_only=True)
class KnativeKpa:
    """Knative's KPA, ``pkg/autoscaler/scaling/autoscaler.go``.

    Every 2 s: ceil(concurrency averaged over ``stable`` seconds / (utilisation x the limit of a
    pod)), at most a halving at once; when the same over ``panic`` seconds asks for twice the
    ready pods, that one, and nothing down until ``stable`` seconds without; to zero
    after ``stable`` + ``grace`` seconds without a request, from zero by the activator at once.
    """

    every: ClassVar[float | None] = 1.0
    bounds: Bounds
    utilisation: float = 0.7
    stable: float = 60.0
    panic: float = 6.0
    threshold: float = 2.0
    grace: float = 30.0

    def initial(self) -> Samples:
        return Samples()

    def decide(self, observation: Observation, state: Samples) -> tuple[Decision, Samples]:
        now, demand = observation.now, observation.demand or 0
        seen = _within(state.seen, now - self.stable, (now, demand))
        state = replace(state, seen=seen, active=now if demand else state.active)
        # Concurrency is sampled every second, the decision made every other; the activator
        # pokes the autoscaler for the first request of a revision that has no pods.
        if now % 2 and not (state.target == 0 and demand):
            return Decision(desired=state.target, reason="KPA"), state
        per_pod = max(1.0, self.utilisation * self.bounds.max_inputs)
        ready = observation.count(NodeState.READY)
        stable = math.ceil(_average(seen) / per_pod)
        panic = math.ceil(_average([s for s in seen if s[0] > now - self.panic]) / per_pod)
        # max-scale-down-rate 2
        stable, panic = max(stable, ready // 2), max(panic, ready // 2)
        if panic / max(1, ready) >= self.threshold:
            state = replace(state, panic_until=now + self.stable)
        if now < state.panic_until:
            nodes = max(stable, panic, state.panic_nodes)
            state = replace(state, panic_nodes=nodes)
        else:
            nodes = stable
            state = replace(state, panic_nodes=0)
        if nodes == 0 and (demand or now < state.active + self.stable + self.grace):
            nodes = min(1, max(state.target, demand))
        nodes = min(nodes, self.bounds.max_nodes)
        return Decision(desired=nodes, reason="KPA"), replace(state, target=nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaHpa:
    """KEDA with a Kubernetes HPA, on the total demand.

    From zero at KEDA's poll (``poll``); then every 15 s
    ceil(demand / target) unless within ``tolerance``, up by at most max(4 pods, double) per
    15 s, down to the maximum of the last ``stabilization`` seconds; to zero ``cooldown``
    seconds after there was demand.
    """

    every: ClassVar[float | None] = 15.0
    bounds: Bounds
    target: float | None = None
    poll: float = 30.0
    stabilization: float = 300.0
    cooldown: float = 300.0
    tolerance: float = 0.1

    def initial(self) -> Samples:
        return Samples()

    def decide(self, observation: Observation, state: Samples) -> tuple[Decision, Samples]:
        now, demand = observation.now, observation.demand or 0
        nodes = state.target
        polled = now % self.poll == 0
        active = now if demand and polled else state.active
        if nodes == 0:
            nodes = 1 if demand and polled else 0
            return Decision(desired=nodes, reason="KEDA"), replace(
                state, target=nodes, active=active, seen=()
            )
        if not demand and now >= active + self.cooldown:
            return Decision(desired=0, reason="KEDA"), replace(
                state, target=0, active=active, seen=()
            )
        per_pod = self.target or self.bounds.target
        wished = math.ceil(demand / per_pod)
        if abs(demand / (per_pod * nodes) - 1) <= self.tolerance:
            wished = nodes
        seen = _within(state.seen, now - self.stabilization, (now, wished))
        most = max(int(value) for _, value in seen)
        if wished > nodes:
            nodes = min(wished, max(nodes + 4, 2 * nodes), self.bounds.max_nodes)
        else:
            # minReplicas is 1 for the HPA: zero is KEDA's.
            nodes = max(1, min(nodes, most))
        return Decision(desired=nodes, reason="KEDA"), replace(
            state, target=nodes, active=active, seen=seen
        )


def _within(
    seen: tuple[tuple[float, float], ...], oldest: float, newest: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    return (*[sample for sample in seen if sample[0] > oldest], newest)


def _average(seen: Iterable[tuple[float, float]]) -> float:
    values = [value for _, value in seen]
    return sum(values) / len(values) if values else 0.0
