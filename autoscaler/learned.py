"""What is learned about a fleet by looking at it: cold start and run time."""

from __future__ import annotations

from dataclasses import dataclass

from celery_concurrent.autoscaler.model import NodeState, Observation

# Too short a cold start costs service, too long a one hardly anything: err high.
_LONGER, _SHORTER = 0.5, 0.1
# So many inputs ago counts half.
_HALF_LIFE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Plain numbers, and the last reading.

    Args:
        cold_start: seconds from a node's start until it takes inputs, an average that errs high.
        seen: whether a start was seen to its end; before, cold_start is what somebody said.
        now: when the last reading was; running, demand, arrived, finished: what it told.
        busy: input-seconds that ran; done: inputs that ended in them; both forget.
        starting: since when which nodes were starting at the last reading.
    """

    cold_start: float
    seen: bool = False
    now: float = 0.0
    running: int = 0
    demand: int | None = None
    arrived: int | None = None
    finished: int | None = None
    busy: float = 0.0
    done: float = 0.0
    starting: tuple[tuple[str, float], ...] = ()

    @property
    def run_time(self) -> float | None:
        """Mean seconds of an input; None before there was one."""
        if self.busy <= 0:
            return None
        # Before an input has ended, all that ran so far counts as one: an upper bound.
        return self.busy / max(1.0, self.done)


def learn(observation: Observation, learned: Learned) -> tuple[Learned, int]:
    """What is known after this reading, and how many inputs arrived since the last one.

    Where nobody counts arrivals or ends, the growth or the shrinking of the demand stands for
    them: too few, but none that were not.
    """
    came, ended = _changes(observation, learned)
    # The inputs that were running at the last reading ran until now.
    busy = learned.busy
    if learned.running:
        busy += learned.running * (observation.now - learned.now)
    done = learned.done + ended
    if done > 2 * _HALF_LIFE:
        busy, done = busy / 2, done / 2
    demand = observation.demand
    cold_start = _cold_start(observation, learned)
    return (
        Learned(
            cold_start=learned.cold_start if cold_start is None else cold_start,
            seen=learned.seen or cold_start is not None,
            now=observation.now,
            running=observation.running,
            demand=learned.demand if demand is None else demand,
            arrived=observation.arrived,
            finished=observation.finished,
            busy=busy,
            done=done,
            starting=_starting(observation),
        ),
        came,
    )


def _changes(observation: Observation, learned: Learned) -> tuple[int, int]:
    """Arrivals and ends since the last reading."""
    demand = observation.demand
    grown = 0 if demand is None or learned.demand is None else demand - learned.demand
    ended = _counted(observation.finished, learned.finished)
    came = _counted(observation.arrived, learned.arrived)
    if ended is None:
        ended = max(0, -grown) if came is None else max(0, came - grown)
    if came is None:
        came = max(0, grown + ended)
    return came, ended


def _counted(now: int | None, before: int | None) -> int | None:
    """How far a counter went; None when it is unknown, or began anew."""
    if now is None or before is None or now < before:
        return None
    return now - before


def _cold_start(observation: Observation, learned: Learned) -> float | None:
    """The average with the starts that ended since the last reading; None when there are none."""
    if not learned.starting:
        return None
    since = dict(learned.starting)
    known = learned.cold_start if learned.seen else None
    for node in observation.nodes:
        if node.state is NodeState.READY and node.name in since:
            took = node.since - since[node.name]
            if known is None:
                known = took
            else:
                known += (_LONGER if took > known else _SHORTER) * (took - known)
    return known


def _starting(observation: Observation) -> tuple[tuple[str, float], ...]:
    # From an adoption to the first word is no start.
    return tuple(
        [
            (node.name, node.since)
            for node in observation.nodes
            if node.state is NodeState.STARTING and not node.adopted
        ]
    )
