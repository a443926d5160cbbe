"""The picture that the demo leaves: both fleets over time, demand, capacity, nodes and waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt

from celery_concurrent.demo.measure import Ledger, percentile, seconds, steps
from celery_concurrent.limits import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STATES = {"ready": "#3a8a3a", "starting": "#f2d231", "draining": "#a05cb0"}


def draw(runs: Sequence[tuple[str, Ledger]], limits: Limits, *, path: Path) -> None:
    """Write a PNG with a column for each run, all on the same scales.

    Demand, running and waits are exact: every step is one input's arrival, start or end.
    Capacity and nodes are what the autoscaler told at each look.
    """
    figure, grid = plt.subplots(
        3,
        len(runs),
        sharex=True,
        sharey="row",
        squeeze=False,
        figsize=(13, 8),
        height_ratios=(3, 1.5, 1.5),
        layout="constrained",
    )
    for column, (title, ledger) in enumerate(runs):
        load, nodes, waits = (row[column] for row in grid)
        load.set_title(_titled(title, ledger))
        _draw_load(load, ledger, limits)
        _draw_nodes(nodes, ledger)
        _draw_waits(waits, ledger)
        waits.set_xlabel("seconds")
    for row, label in zip(grid, ("inputs", "nodes", "wait for a slot (s)"), strict=True):
        row[0].set_ylabel(label)
        row[0].set_ylim(bottom=0)
    grid[0][0].set_xlim(left=0)
    load_handles, load_labels = grid[0][0].get_legend_handles_labels()
    node_handles, node_labels = grid[1][0].get_legend_handles_labels()
    figure.legend(
        [*load_handles, *node_handles],
        [*load_labels, *node_labels],
        loc="outside lower center",
        frameon=False,
        ncols=7,
    )
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _titled(title: str, ledger: Ledger) -> str:
    p99 = seconds(percentile(ledger.waits, 0.99))
    return f"{title}: {ledger.node_seconds:.0f} node-seconds, wait p99 {p99}"


def _draw_load(axes: Axes, ledger: Ledger, limits: Limits) -> None:
    done = [o for o in ledger.outcomes if o.started is not None and o.ended is not None]
    ended = [o.ended for o in done if o.ended is not None]
    started = [o.started for o in done if o.started is not None]
    demand = steps([o.arrived for o in done], ended)
    axes.fill_between(
        *demand,
        step="post",
        color="#f2b134",
        alpha=0.45,
        linewidth=0,
        label="demand (waiting + running)",
    )
    axes.fill_between(
        *steps(started, ended),
        step="post",
        color="#2f6fb0",
        alpha=0.9,
        linewidth=0,
        label="running",
    )
    at = [at for at, _ in ledger.looks]
    ready = [fleet.count("ready") for _, fleet in ledger.looks]
    for per_node, colour, style, name in (
        (limits.max_inputs, "#b03030", "-", "max_inputs"),
        (limits.target, "#3a8a3a", "--", "target_inputs"),
    ):
        capacity = [nodes * per_node for nodes in ready]
        axes.step(
            at,
            capacity,
            where="post",
            color=colour,
            lw=1,
            ls=style,
            label=f"capacity at {name}={per_node}",
        )


def _draw_nodes(axes: Axes, ledger: Ledger) -> None:
    at = [at for at, _ in ledger.looks]
    counts = [[fleet.count(state) for _, fleet in ledger.looks] for state in _STATES]
    axes.stackplot(at, *counts, step="post", labels=list(_STATES), colors=list(_STATES.values()))


def _draw_waits(axes: Axes, ledger: Ledger) -> None:
    waits = [(o.arrived, o.wait) for o in ledger.outcomes if o.wait is not None]
    axes.scatter([at for at, _ in waits], [wait for _, wait in waits], s=5, color="#444444")
