"""Plans as people read them: a rich table, the variants side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from celery_concurrent.autoscaler.plan import WITHIN, Plan, devices
from celery_concurrent.autoscaler.replay import Replay

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = " ▁▂▃▄▅▆▇█"
_BUCKETS = 18


def table(plan: Plan) -> RenderableType:
    """What was replayed, then a column for each variant."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    knobs = plan.fleet.knobs
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    found.add_column()
    for variant in plan.variants:
        found.add_column(variant.name, justify="right")
    rows: list[tuple[str, Callable[[Replay], str]]] = [
        ("node-seconds", lambda replay: f"{replay.node_seconds:,.0f}"),
        ("p50 wait", lambda replay: _wait(replay.wait(0.5))),
        ("p99 wait", lambda replay: _wait(replay.wait(0.99))),
        (f"start within {WITHIN:g} s", lambda replay: f"{replay.within(WITHIN):.1%}"),
        ("peak nodes", lambda replay: f"{replay.peak}"),
        ("starts", _starts),
        ("drains", lambda replay: f"{replay.drains}"),
        ("last input ends", lambda replay: f"{replay.ended:,.0f} s"),
    ]
    if knobs.gpus:
        rows.insert(5, ("peak devices", lambda replay: f"{devices(replay.peak, knobs)}"))
    for name, cell in rows:
        found.add_row(name, *(cell(variant.replay) for variant in plan.variants))
    until = max(variant.replay.ended for variant in plan.variants)
    peak = max(variant.replay.peak for variant in plan.variants)
    found.add_row(
        "nodes over time",
        *(Text(_bars(each.replay, until, peak), style="cyan") for each in plan.variants),
    )
    return Group(*(Text(line) for line in _inputs(plan)), Text(), found)


def _inputs(plan: Plan) -> Iterator[str]:
    fleet = plan.fleet
    yield (
        f"{fleet.queue}: {len(plan.arrivals):,} inputs in {plan.span:,.0f} s, "
        f"{plan.mean_seconds:.1f} s each; a node takes inputs {plan.start_seconds:g} s after its "
        "start"
    )
    yield f"target_inputs={fleet.limits.target}, max_inputs={fleet.limits.max_inputs}"
    said: dict[str, list[str]] = {}
    for name, value in asdict(fleet.knobs).items():
        said.setdefault(fleet.source_of(name), []).append(f"{name}={value}")
    for source, knobs in said.items():
        if source != "default":
            yield f"{source}: {', '.join(knobs)}"


def _wait(seconds: float) -> str:
    return f"{seconds:,.1f} s" if math.isfinite(seconds) else "no end"


def _starts(replay: Replay) -> str:
    cancelled = f" ({replay.cancels} cancelled)" if replay.cancels else ""
    return f"{replay.starts}{cancelled}"


def _bars(replay: Replay, until: float, peak: int) -> str:
    means = mean_nodes(replay, until, _BUCKETS)
    highest = len(_BARS) - 1
    # A node that is there for a moment shows.
    return "".join(_BARS[max(mean > 0, round(highest * mean / max(1, peak)))] for mean in means)


def mean_nodes(replay: Replay, until: float, buckets: int) -> list[float]:
    """The nodes there are on average in each of so many equal parts of the time to ``until``."""
    width = until / buckets
    if not width:
        return [float(replay.peak)] * buckets
    seconds = [0.0] * buckets
    ends = [step.at for step in replay.steps[1:]] + [replay.ended]
    for step, end in zip(replay.steps, ends, strict=True):
        at, place = step.at, min(buckets - 1, int(step.at / width))
        while at < end:
            edge = end if place == buckets - 1 else min(end, (place + 1) * width)
            seconds[place] += step.nodes * max(0.0, edge - at)
            at, place = edge, min(buckets - 1, place + 1)
    return [each / width for each in seconds]
