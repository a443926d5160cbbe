"""What the person who waits sees, the table, the JSON and the picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.fleet.live.model import Case, Line
from benchmarks.progress import Moving
from benchmarks.report import machine, number


class Progress(Moving):
    """What cases take."""

    def watch(self, case: Case, count: int) -> None:
        """Tell how far the current case is."""
        self.move(f"{case.row}, {case.broker}, {case.name}", count, case.samples)

    def done(self, lines: Sequence[Line]) -> None:
        """Leave what came of a case."""
        self.leave(
            *(
                f"{line.case.broker:<8} {line.case.name}: {line.what} {_figures(line)}"
                for line in lines
            )
        )


def _figures(line: Line) -> str:
    return f"p50 {number(line.p50)}, p99 {number(line.p99)} {line.unit}, {len(line.values)} times"


def show(console: Console, lines: Sequence[Line]) -> None:
    """A table with what is promised beside what was measured."""
    table = Table(title="a real autoscaler, nodes and brokers", title_justify="left")
    for name in ("broker", "case", "what"):
        table.add_column(name)
    for name in ("p50", "p99", "may be", "times"):
        table.add_column(name, justify="right")
    before: Case | None = None
    for line in lines:
        case = line.case
        if before is not None and case != before:
            table.add_section()
        named = ("", "") if case == before else (case.broker, case.name)
        most = "–" if line.most is None else number(line.most)
        shown = Text(number(line.p99), style="" if line.holds else "bold red")
        what = f"{line.what} ({line.unit})"
        table.add_row(*named, what, number(line.p50), shown, most, str(len(line.values)))
        before = case
    console.print(table)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"Load average at the end (1, 5, 15 min): {load}", highlight=False)
    for text in broken(lines):
        console.print(text, style="red", highlight=False)


def broken(lines: Sequence[Line]) -> list[str]:
    """Which promises do not hold."""
    return [
        f"{line.case.broker}, {line.case.name}: {line.what} takes {number(line.p99)} {line.unit} "
        f"at the p99, may take {number(line.most or 0.0)}"
        for line in lines
        if not line.holds
    ]


def save(path: Path, lines: Sequence[Line], load: Sequence[float]) -> None:
    """All that was measured, and on what, as JSON; ``load`` is what it began with."""
    document: dict[str, Any] = {
        "machine": {**machine(), "load_before": list(load), "load_after": list(os.getloadavg())},
        "lines": [
            {
                **asdict(line),
                "case": {**asdict(line.case), "name": line.case.name},
                "p50": line.p50,
                "p99": line.p99,
                "holds": line.holds,
            }
            for line in lines
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def draw(path: Path, lines: Sequence[Line]) -> bool:
    """The starts, a chart per case and a dot per sample; False when there are none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    starts = [line for line in lines if line.case.row == "start"]
    cases = list(dict.fromkeys(line.case for line in starts))
    if not cases:
        return False
    figure, grid = pyplot.subplots(len(cases), 1, figsize=(9, 1.7 * len(cases)), squeeze=False)
    for chart, case in zip(grid.flat, cases, strict=True):
        here = [line for line in starts if line.case == case]
        for place, line in enumerate(here):
            chart.plot(line.values, [place] * len(line.values), "o", alpha=0.3, color="#1b7837")
            if line.most is not None:
                chart.plot([line.most] * 2, [place - 0.4, place + 0.4], color="#d6604d")
        chart.set_yticks(range(len(here)), [line.what for line in here], fontsize=7)
        chart.invert_yaxis()
        chart.set_xlim(left=0)
        chart.set_title(f"{case.broker}, {case.name} (ms; red: what the p99 may be)", fontsize=8)
        chart.tick_params(axis="x", labelsize=7)
        chart.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True
