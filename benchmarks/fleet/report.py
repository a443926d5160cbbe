"""The replay's table, JSON and picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from benchmarks.fleet.peers import Bounds
from benchmarks.fleet.ratios import Outcomes, Ratio
from benchmarks.fleet.replay import BREAK_EVEN, HOLD, PEERS, Case, Outcome

matplotlib.use("Agg")

_COLOURS = ("#762a83", "#8c8c8c", "#4393c3", "#d6604d", "#b8860b")


def show(console: Console, outcomes: Outcomes, found: Sequence[Ratio]) -> None:
    """A table per case, then the ratios."""
    for case in _cases(outcomes):
        console.print(_case_table(case, outcomes))
    console.print(_ratio_table(found))


def _case_table(case: Case, outcomes: Outcomes) -> Table:
    table = Table(title=f"{case.trace}, cold start {case.cold_start:g} s", title_justify="left")
    table.add_column("")
    for name in ("node-seconds", "p50 wait", "p90", "p99", "within 1 s", "within 10 s", "peak"):
        table.add_column(name, justify="right")
    for contender in (HOLD, BREAK_EVEN, *PEERS):
        table.add_row(contender.name, *_row(outcomes[case, contender]))
    return table


def _row(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.node_seconds:,.0f}",
        *[f"{wait:.1f} s" for wait in (outcome.p50, outcome.p90, outcome.p99)],
        *[f"{share:.1%}" for share in (outcome.within_1, outcome.within_10)],
        str(outcome.peak),
    ]


def _ratio_table(found: Sequence[Ratio]) -> Table:
    title = "node-seconds of ours / theirs, geometric mean over traces and cold starts"
    table = Table(title=title, title_justify="left")
    for name in ("ours", "theirs", "compared at"):
        table.add_column(name)
    for name in ("mean", "worst", "cases"):
        table.add_column(name, justify="right")
    for ratio in found:
        known = [value for value in ratio.values if value is not None]
        mean = "–" if ratio.mean is None else f"{ratio.mean:.2f}"
        cases = f"{len(known)} of {len(ratio.values)}"
        table.add_row(ratio.ours, ratio.theirs, ratio.how, mean, f"{ratio.worst:.2f}", cases)
    return table


def save(path: Path, bounds: Bounds, outcomes: Outcomes, found: Sequence[Ratio]) -> None:
    """All outcomes and ratios, as JSON."""
    document = {
        "fleet": asdict(bounds),
        "outcomes": [
            {**asdict(case), **asdict(contender), **asdict(outcome)}
            for (case, contender), outcome in outcomes.items()
        ],
        "ratios": [{**asdict(ratio), "mean": ratio.mean} for ratio in found],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def draw(path: Path, outcomes: Outcomes) -> None:
    """Cost against service, a chart per case: break-even's prices as a line, the others as dots."""
    from matplotlib import pyplot

    cases = _cases(outcomes)
    width = len({case.cold_start for case in cases})
    height = -(-len(cases) // width)
    figure, grid = pyplot.subplots(
        height, width, figsize=(4.6 * width, 3.2 * height), squeeze=False
    )
    for chart, case in zip(grid.flat, cases, strict=True):
        _chart(chart, case, outcomes)
    grid.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _chart(chart: matplotlib.axes.Axes, case: Case, outcomes: Outcomes) -> None:
    line = [
        outcome
        for (found, contender), outcome in sorted(
            outcomes.items(), key=lambda item: item[0][1].knob or 0.0
        )
        if found == case and contender.rule == BREAK_EVEN.rule
    ]
    chart.plot(*_points(line), "-", color="#1b7837", linewidth=1, label="break-even, any price")
    chart.plot(*_points([outcomes[case, BREAK_EVEN]]), "*", color="#1b7837", label=BREAK_EVEN.name)
    for contender, colour in zip((HOLD, *PEERS), _COLOURS, strict=True):
        chart.plot(*_points([outcomes[case, contender]]), "o", color=colour, label=contender.name)
    chart.set_title(f"{case.trace}, cold start {case.cold_start:g} s", fontsize=8)
    chart.set_xlabel("node-seconds", fontsize=7)
    chart.set_ylabel("inputs that start within 10 s [%]", fontsize=7)
    chart.tick_params(labelsize=7)
    chart.spines[["top", "right"]].set_visible(False)


def _points(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    return [each.node_seconds for each in outcomes], [100 * each.within_10 for each in outcomes]


def _cases(outcomes: Outcomes) -> list[Case]:
    return list(dict.fromkeys(case for case, _ in outcomes))
