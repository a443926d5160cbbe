"""The default policy: up at once, down to the peak of the last window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from celery_concurrent.autoscaler.bounds import Sizes, inputs, nodes_for
from celery_concurrent.autoscaler.learned import Learned, learn
from celery_concurrent.autoscaler.model import Decision, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """A number of nodes that was wanted, the last time at ``until``."""

    until: float
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldState:
    """What a :class:`Hold` remembers.

    Args:
        learned: the run time; its cold start is of no use here.
        want: the nodes wanted since the last known demand; None before there was one.
        peaks: what was wanted before, as far as it still counts: ``until`` grows, ``nodes``
            falls, so there are never more than max_nodes of them.
        desired: the last decision.
    """

    learned: Learned
    want: int | None = None
    peaks: tuple[Peak, ...] = ()
    desired: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Sizes):
    """Peak hold: the nodes that the demand asks for, kept for a window after their last use.

    want = ceil(demand / target), clamped to min_nodes..max_nodes, plus buffer_nodes while there
    is demand, never above max_nodes. The fleet goes up to it at once, and down to the maximum
    of want over the last ``window`` seconds. Each demand counts until the next one is known, so
    a steady fleet that nobody looks at keeps its window, and so does one whose broker was away.

    A busy node is kept for a mean run time at least. Drained, it would cost about as much until
    its inputs have ended, while a demand that returns would have to start another: keeping it is
    never worse than twice what hindsight would do.

    Args:
        window: seconds that a node is kept after it was last wanted, 0 or more.
    """

    window: float = 60.0

    def __post_init__(self) -> None:
        # By name: a slotted dataclass is made anew, and super() would look in the first one.
        Sizes.__post_init__(self)
        self.require_number("window", self.window)

    def initial(self) -> HoldState:
        return HoldState(learned=Learned(cold_start=0.0), desired=self.min_nodes)

    def decide(self, observation: Observation, state: HoldState) -> tuple[Decision, HoldState]:
        learned, _ = learn(observation, state.learned)
        demand = observation.demand
        if demand is None:
            return self._blind(observation, replace(state, learned=learned))
        want = self.with_buffer(self.clamp(nodes_for(demand, self.target)), active=demand > 0)
        # A fleet that was never looked at, as after the autoscaler's restart, was wanted until now.
        before = observation.live if state.want is None else state.want
        longest = max(self.window, learned.run_time or 0.0)
        peaks = _peaks(observation.now, longest, want, before, state.peaks)
        desired = self._held(observation, want, peaks)
        reason = f"{inputs(demand)} at {self.target} per node"
        if want > self.clamp(nodes_for(demand, self.target)):
            reason += f", buffer_nodes={self.buffer_nodes}"
        reason += f": {want} wanted"
        until = None
        if desired > want:
            # The last of the peaks that are as high: those before it are over earlier.
            last = [peak.until for peak in peaks if peak.nodes >= desired][-1]
            until = last + (longest if observation.busy >= desired else self.window)
            reason += f", {desired} held for {until - observation.now:.0f} s"
        return (
            Decision(desired=desired, reason=reason, look_again_at=until),
            HoldState(want=want, peaks=peaks, desired=desired, learned=learned),
        )

    def _blind(self, observation: Observation, state: HoldState) -> tuple[Decision, HoldState]:
        decision = self.unknown(observation, state.desired)
        want = state.want
        # Before the first known demand all that lives then counts, what is ordered now with it.
        if want is not None:
            want = max(want, self.clamp(nodes_for(observation.known, self.target)))
        return decision, replace(state, want=want, desired=decision.desired)

    def _held(self, observation: Observation, want: int, peaks: Sequence[Peak]) -> int:
        """What is wanted, or was in the window; of what was so before it, what is busy."""
        # Each peak is above what was wanted after it: the first is the highest, and ends first.
        inside = [peak.nodes for peak in peaks if observation.now < peak.until + self.window]
        busy = min(peaks[0].nodes, observation.busy) if peaks else 0
        return self.clamp(max([want, busy, *inside[:1]]))


def _peaks(
    now: float, longest: float, want: int, before: int, peaks: tuple[Peak, ...]
) -> tuple[Peak, ...]:
    """The peaks above ``want`` that ended less than ``longest`` ago, now that ``before`` ended."""
    if before > want:
        peaks = (*peaks, Peak(until=now, nodes=before))
    # By the sum that says when to look again: rounded otherwise, that time might be now.
    return tuple(peak for peak in peaks if peak.nodes > want and now < peak.until + longest)
