"""What a fleet would have done with a trace, beside what else there is to choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from celery_concurrent.autoscaler.bounds import Sizes
from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.keeper import policy_of
from celery_concurrent.autoscaler.model import AnyPolicy
from celery_concurrent.autoscaler.replay import Arrival, Engine, Replay
from celery_concurrent.autoscaler.simulate import simulate
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet
from celery_concurrent.knobs import Knobs, Layer, nearest

#: The wait that a service level is told by, in seconds.
WITHIN: Final = 10.0

_OTHER: Final = {"hold": "break-even", "break-even": "hold"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to size the fleet, and what came of it.

    Args:
        name: for people, with the knob that matters.
        replay: from the first arrival until the last input has ended.
    """

    name: str
    replay: Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet on a trace.

    Args:
        fleet: as it was replayed.
        arrivals: the trace.
        start_seconds: from a node's order until it takes inputs.
        variants: the fleet's own policy, the other one, and a fixed fleet of the same cost as
            the first.
    """

    fleet: Fleet
    arrivals: Sequence[Arrival]
    start_seconds: float
    variants: tuple[Variant, ...]

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the last one."""
        return self.arrivals[-1].at

    @property
    def mean_seconds(self) -> float:
        """How long an input runs, on average."""
        return sum(arrival.seconds for arrival in self.arrivals) / len(self.arrivals)


def choose(fleets: Mapping[str, Fleet], queue: str | None) -> Fleet:
    """The fleet of ``queue``, or the only one.

    Raises:
        ConfigurationError: there is none, or several to choose from.
    """
    if not fleets:
        raise ConfigurationError(
            "the app has no concurrent task, so there is no fleet: name the app by -A, and add "
            "@concurrent(max_inputs=...) to a task"
        )
    if queue is None and len(fleets) > 1:
        raise ConfigurationError(
            f"the app has {len(fleets)} fleets: name the queue of one ({', '.join(fleets)})"
        )
    chosen = next(iter(fleets)) if queue is None else queue
    if chosen not in fleets:
        near = nearest(chosen, fleets) or f": name one of {', '.join(fleets)}"
        raise ConfigurationError(f"queue {chosen!r} has no fleet{near}")
    return fleets[chosen]


def with_knobs(fleet: Fleet, knobs: Mapping[str, Any]) -> Fleet:
    """The fleet with these knobs in the place of its own; None says nothing.

    Raises:
        ConfigurationError: the knobs are wrong.
    """
    return replace(fleet, layers=(*fleet.layers, Layer.of(fleet.queue, "command line", knobs)))


def make_plan(
    fleet: Fleet,
    arrivals: Sequence[Arrival],
    *,
    start_seconds: float,
    progress: Callable[[float], None] | None = None,
) -> Plan:
    """Replay the trace through both policies and through a fixed fleet.

    Args:
        fleet: whose limits and knobs count.
        arrivals: ordered, one or more.
        start_seconds: from a node's order until it takes inputs, 0 or more.
        progress: hears now and then which share of all is done, in 0..1.

    Raises:
        ConfigurationError: there is nothing to replay, or no node may run it.
    """
    if not arrivals:
        raise ConfigurationError("the trace has no arrivals: record some first")
    Sizes.require_number("start_seconds", start_seconds)
    own = policy_of(fleet)
    if own is None:
        raise ConfigurationError(
            f"fleet {fleet.queue!r} has max_nodes=0 ({fleet.source_of('max_nodes')}), so no node "
            "would run: say --max-nodes"
        )
    engine = Engine(
        target=fleet.limits.target, max_inputs=fleet.limits.max_inputs, cold_start=start_seconds
    )
    other = fleet.overridden({"policy": _OTHER[fleet.knobs.policy]})
    replays: list[Variant] = []

    def add(name: str, policy: AnyPolicy | None, engine: Engine) -> None:
        assert policy is not None
        told = None if progress is None else _shares(progress, len(replays), len(arrivals))
        replays.append(Variant(name=name, replay=simulate(policy, arrivals, engine, progress=told)))

    add(_name(fleet.knobs), own, engine)
    add(_name(other.knobs), policy_of(other), engine)
    nodes = same_cost(replays[0].replay)
    fixed = Hold(target=engine.target, max_nodes=nodes, min_nodes=nodes)
    # It is there before the first input.
    add(f"fixed, {nodes} node{'s' * (nodes > 1)}", fixed, replace(engine, cold_start=0.0))
    return Plan(
        fleet=fleet, arrivals=arrivals, start_seconds=start_seconds, variants=tuple(replays)
    )


def same_cost(replay: Replay) -> int:
    """How many nodes cost the same when they are there all the time: the nearest number above 0."""
    return max(1, round(replay.node_seconds / replay.ended)) if replay.ended else 1


def _shares(progress: Callable[[float], None], before: int, inputs: int) -> Callable[[int], None]:
    """Tells the share of all three replays at every hundredth of one."""
    step = max(1, inputs // 100)
    told = 0

    def tell(ended: int) -> None:
        nonlocal told
        if ended >= told + step:
            told = ended
            progress((before + ended / inputs) / 3)

    return tell


def _name(knobs: Knobs) -> str:
    if knobs.policy == "break-even":
        return f"break-even, price {knobs.price:g}"
    return f"hold, {knobs.scaledown_window:g} s"


def as_data(plan: Plan) -> dict[str, Any]:
    """What JSON can hold; None for a wait without an end."""
    fleet = plan.fleet
    return {
        "queue": fleet.queue,
        "target_inputs": fleet.limits.target,
        "max_inputs": fleet.limits.max_inputs,
        "knobs": asdict(fleet.knobs),
        "sources": {name: fleet.source_of(name) for name in asdict(fleet.knobs)},
        "start_seconds": plan.start_seconds,
        "inputs": len(plan.arrivals),
        "span": plan.span,
        "mean_seconds": plan.mean_seconds,
        "variants": [_variant(each, fleet.knobs) for each in plan.variants],
    }


def _variant(variant: Variant, knobs: Knobs) -> dict[str, Any]:
    replay = variant.replay
    return {
        "name": variant.name,
        **{f"p{share}_wait": _finite(replay.wait(share / 100)) for share in (50, 90, 99)},
        "within_10_s": replay.within(WITHIN),
        "node_seconds": replay.node_seconds,
        "peak_nodes": replay.peak,
        "peak_devices": devices(replay.peak, knobs),
        "starts": replay.starts,
        "cancels": replay.cancels,
        "drains": replay.drains,
        "ended": replay.ended,
        "steps": [asdict(step) for step in replay.steps],
    }


def devices(nodes: int, knobs: Knobs) -> int:
    """How many devices so many nodes need."""
    return math.ceil(nodes * knobs.gpus / knobs.nodes_per_gpu)


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
