"""Plans as a picture: what arrived, the nodes over time, the waits."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt

from celery_concurrent.autoscaler.plan import Plan, Variant

_COLOURS = ("#2f6fb0", "#b8860b", "#8c8c8c")
_BINS = 200


def draw(plan: Plan, path: Path) -> None:
    """Write a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(11, 8), height_ratios=(1, 2, 1.4), layout="constrained"
    )
    until = max(variant.replay.ended for variant in plan.variants)
    times = [arrival.at for arrival in plan.arrivals]
    width = max(until, 1e-3) / _BINS
    top.hist(
        times,
        bins=_BINS,
        range=(0.0, width * _BINS),
        weights=[1 / width] * len(times),
        color="#f2b134",
    )
    top.set_ylabel("arrivals per second")
    top.set_title(
        f"{plan.fleet.queue}: {len(plan.arrivals):,} inputs, a node takes inputs "
        f"{plan.start_seconds:g} s after its start"
    )
    for place, (variant, colour) in enumerate(zip(plan.variants, _COLOURS, strict=True)):
        at, nodes = curve(variant, until)
        middle.plot(at, nodes, drawstyle="steps-post", color=colour, lw=1.4, label=_label(variant))
        if place == 0:
            middle.fill_between(at, nodes, step="post", color=colour, alpha=0.2, linewidth=0)
        bottom.scatter(times, variant.replay.waits, s=4, color=colour, zorder=3 - place)
    middle.set_ylabel("nodes")
    # Room for the legend.
    middle.set_ylim(top=1.4 * max(1, *(variant.replay.peak for variant in plan.variants)))
    middle.legend(loc="upper left", frameon=False, fontsize=9)
    bottom.set_ylabel("wait (s)")
    bottom.set_xlabel("seconds from the first arrival")
    bottom.set_xlim(0, width * _BINS)
    for axes in (top, middle, bottom):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def curve(variant: Variant, until: float) -> tuple[list[float], list[int]]:
    """The instants at which the nodes change, and the nodes from each on; none after the end."""
    replay = variant.replay
    at = [*(step.at for step in replay.steps), replay.ended, until]
    return at, [*(step.nodes for step in replay.steps), 0, 0]


def _label(variant: Variant) -> str:
    wait = variant.replay.wait(0.99)
    told = f"{wait:,.1f} s" if math.isfinite(wait) else "without end"
    return f"{variant.name}: {variant.replay.node_seconds:,.0f} node-seconds, p99 wait {told}"
