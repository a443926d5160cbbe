"""The learning policy: each node is kept for as long as it costs not to have it.

A fleet is a pile of layers. Layer j is its j-th node, needed while the demand exceeds
(j-1) x target. A layer that is not needed costs node-seconds; a layer that is missing when
the need returns costs a cold start, and the waiting until it is over. Keeping a layer for as
long as it takes to waste what a miss would cost is never worse than twice the best that
hindsight could do: the break-even rule of the ski rental problem (Karlin et al., Competitive
snoopy caching, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from celery_concurrent.autoscaler.bounds import Sizes, inputs, nodes_for
from celery_concurrent.autoscaler.learned import Learned, learn
from celery_concurrent.autoscaler.model import Decision, NodeState, Observation
from celery_concurrent.errors import ConfigurationError

# How much the newest need of a layer counts, against all before it.
_NEWEST = 0.3
# Within a run time demand swings by itself, which is worth no more than so many cold starts.
_SWING = 2.0


class Trial(NamedTuple):
    """The first seconds of a need, without and with the layer: two fluid queues.

    Args:
        layer: whose need it is, from 1.
        began: when the need began.
        without: inputs there would be with layer - 1 nodes.
        with_it: inputs there would be with ``layer`` nodes.
        spared: input-seconds that wait in the first queue and not in the second.
    """

    layer: int
    began: float
    without: float
    with_it: float
    spared: float


class Layer(NamedTuple):
    """What is known of one layer.

    Args:
        spared: input-seconds of waiting that the layer spares in a cold start's time, smoothed.
        lasting: the share of needs that outlast a cold start without the layer, smoothed.
        ended: when it was last needed.
    """

    spared: float = 0.0
    lasting: float = 1.0
    ended: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEvenState:
    """What a :class:`BreakEven` remembers: plain numbers, at most a few for each of max_nodes.

    Args:
        learned: cold start and run time, and the last reading they were learned from.
        need: how many layers were needed at the last known demand; None before there was one.
        layers: what is known of each layer, from the first one.
        trials: needs that began less than a cold start ago.
        desired: the last decision.
    """

    learned: Learned
    need: int | None = None
    layers: tuple[Layer, ...] = ()
    trials: tuple[Trial, ...] = ()
    desired: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven(Sizes):
    """Order as many nodes as pay off, keep each for its break-even time.

    With L the learned cold start, S the learned mean run time, T the target and q the demand
    above what ready nodes hold at target:

    - Order: have min(q / T, q x sqrt(price x S / (2 T L))) nodes starting, rounded up. The first
      is every input's place; the second is the n that makes n x L + price x q^2 x S / (2 n T)
      smallest, the node-seconds of n starts plus the waiting until n nodes have worked off q.
    - Hold: a layer that is needed no longer is kept for L x (the share of its needs that last
      longer than L) + price x A, where A is the waiting that it spares in the first L seconds
      of a need. Both are learned from two fluid queues, with and without the layer, that are fed
      with the same arrivals; so they do not depend on which nodes there were. An input waits in
      them when all slots are taken, not when its node is above target. It is kept for S at
      least, but no longer than 2 L for that: so long demand swings by itself.
    - Release: what is neither needed nor held.

    ``buffer_nodes`` come on top while the first layer is needed or held.

    Args:
        price: node-seconds that it is worth to spare one input one second of waiting, 0 or more.
        cold_start: seconds from a node's start until it takes inputs, until one was seen.
        max_inputs: inputs that a node runs at once, target or more; None for target.
    """

    price: float = 3.0
    cold_start: float = 20.0
    max_inputs: int | None = None

    def __post_init__(self) -> None:
        # By name: a slotted dataclass is made anew, and super() would look in the first one.
        Sizes.__post_init__(self)
        self.require_number("price", self.price)
        self.require_number("cold_start", self.cold_start)
        if self.max_inputs is not None and self.max_inputs < self.target:
            raise ConfigurationError(
                f"target={self.target!r} must lie in 1..max_inputs={self.max_inputs}"
            )

    def initial(self) -> BreakEvenState:
        return BreakEvenState(learned=Learned(cold_start=self.cold_start), desired=self.min_nodes)

    def decide(
        self, observation: Observation, state: BreakEvenState
    ) -> tuple[Decision, BreakEvenState]:
        learned, arrived = learn(observation, state.learned)
        now, demand = observation.now, observation.demand
        trials, layers = self._watch(now, arrived, learned, state)
        if demand is None:
            need, decision = state.need, self.unknown(observation, state.desired)
            # Before the first known demand all that lives then counts, what is ordered now too.
            if need is not None:
                need = max(need, min(self.max_nodes, nodes_for(observation.known, self.target)))
        else:
            need = min(self.max_nodes, nodes_for(demand, self.target))
            # As after the autoscaler's restart: what lives was needed until now.
            before = min(self.max_nodes, observation.live) if state.need is None else state.need
            layers = _ended(now, need, before, layers)
            trials = _begun(now, demand, need, before, trials)
            decision = self._decision(observation, demand, need, learned, layers)
        return decision, BreakEvenState(
            learned=learned, need=need, layers=layers, trials=trials, desired=decision.desired
        )

    def _decision(
        self,
        observation: Observation,
        demand: int,
        need: int,
        learned: Learned,
        layers: Sequence[Layer],
    ) -> Decision:
        now = observation.now
        kept, until = self._kept(now, need, learned, layers)
        buffer = self.buffer_nodes if kept else 0
        # The buffer is not there to be counted on: the rules see the fleet without it.
        ready = max(0, observation.count(NodeState.READY) - buffer)
        live = max(0, observation.live - buffer)
        order = self._order(demand, ready, learned)
        base = max(ready + order if order else 0, min(live, kept))
        desired = self.clamp(self.clamp(base) + buffer)
        reason = f"{inputs(demand)} at {self.target} per node: {need} needed"
        if order:
            reason += f", {order} to start beside {ready} ready"
        if until is not None and base > need:
            reason += f", {base} held for {until - now:.0f} s"
        if buffer:
            reason += f", buffer_nodes={self.buffer_nodes}"
        return Decision(desired=desired, reason=reason, look_again_at=until)

    def _order(self, demand: int, ready: int, learned: Learned) -> int:
        """How many nodes should be starting."""
        above = demand - ready * self.target
        if above <= 0:
            return 0
        every = above / self.target
        run_time, cold_start = learned.run_time, learned.cold_start
        if run_time is None or cold_start <= 0:
            return math.ceil(every)
        thinned = above * math.sqrt(self.price * run_time / (2 * self.target * cold_start))
        # At least one: with price 0 too, an input that has no place gets a node.
        return max(1, math.ceil(min(every, thinned)))

    def _kept(
        self, now: float, need: int, learned: Learned, layers: Sequence[Layer]
    ) -> tuple[int, float | None]:
        """How many layers are needed or held, and when that falls; None for not by itself."""
        swing = min(learned.run_time or 0.0, _SWING * learned.cold_start)
        for index in range(len(layers) - 1, need - 1, -1):
            layer = layers[index]
            worth = layer.lasting * learned.cold_start + self.price * layer.spared
            until = layer.ended + max(worth, swing)
            if now < until:
                return index + 1, until
        return need, None

    def _watch(
        self, now: float, arrived: int, learned: Learned, state: BreakEvenState
    ) -> tuple[tuple[Trial, ...], tuple[Layer, ...]]:
        """Carry the trials on to ``now``; those that are over tell of their layers."""
        if not state.trials:
            return (), state.layers
        running: list[Trial] = []
        layers = list(state.layers)
        last = state.learned.now
        for trial in state.trials:
            left = trial.began + learned.cold_start - last
            carried = _carry(
                trial,
                arrived=arrived,
                span=now - last,
                left=left,
                slots=self.max_inputs or self.target,
                run_time=learned.run_time,
            )
            if now - last < left:
                running.append(carried)
            else:
                index = trial.layer - 1
                layers[index] = _told(layers[index], carried, self.target)
        return tuple(running), tuple(layers)


def _ended(now: float, need: int, before: int, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers, as many as were ever needed; those above ``need`` are so no longer."""
    missing = max(need, before) - len(layers)
    if missing > 0:
        layers = (*layers, *[Layer()] * missing)
    if need >= before:
        return layers
    ended = [layer._replace(ended=now) for layer in layers[need:before]]
    return (*layers[:need], *ended, *layers[before:])


def _begun(
    now: float, demand: int, need: int, before: int, trials: tuple[Trial, ...]
) -> tuple[Trial, ...]:
    """One more trial for each layer that is needed again, unless it is being watched already."""
    if need <= before:
        return trials
    watched = {trial.layer for trial in trials}
    new = [layer for layer in range(before + 1, need + 1) if layer not in watched]
    return (*trials, *[Trial(layer, now, demand, demand, 0.0) for layer in new])


def _carry(
    trial: Trial,
    *,
    arrived: int,
    span: float,
    left: float,
    slots: int,
    run_time: float | None,
) -> Trial:
    """The trial ``span`` seconds later, at the end of which ``arrived`` inputs came.

    ``left`` is what remains of its watch: waiting after it does not count. What a node has
    ``slots`` for does not wait.
    """
    layer, began, without, with_it, spared = trial
    low, high = (layer - 1) * slots, layer * slots
    after, after_with = without, with_it
    # Before a run time is known nothing ends, and both queues grow alike.
    if run_time:
        rate = span / run_time
        after -= min(without, min(without, low) * rate)
        after_with -= min(with_it, min(with_it, high) * rate)
    waiting = max(0.0, without - low) + max(0.0, after - low)
    waiting -= max(0.0, with_it - high) + max(0.0, after_with - high)
    spared += max(0.0, waiting) / 2 * max(0.0, min(span, left))
    return Trial(layer, began, after + arrived, after_with + arrived, spared)


def _told(layer: Layer, trial: Trial, target: int) -> Layer:
    """What is known of the layer, now that one more need was watched to its end."""
    lasts = 1.0 if trial.without > (trial.layer - 1) * target else 0.0
    return layer._replace(
        spared=layer.spared + _NEWEST * (trial.spared - layer.spared),
        lasting=layer.lasting + _NEWEST * (lasts - layer.lasting),
    )
