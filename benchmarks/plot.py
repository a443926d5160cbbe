"""The picture of a run: one small chart per figure, one group of bars per broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from benchmarks.report import number
from benchmarks.summary import Line

matplotlib.use("Agg")

_COLOURS = {
    "our node": "#1b7837",
    "task_map": "#1b7837",
    "apply_async": "#8c8c8c",
    "celery prefork": "#b2b2b2",
    "celery threads": "#8c8c8c",
    "celery gevent": "#666666",
    "celery eventlet": "#404040",
    "taskiq": "#4393c3",
    "aio-celery": "#d6604d",
}
_COLUMNS = 3


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Write the chart as PNG; a contender that lost results is hatched."""
    from matplotlib import pyplot

    titles = list(dict.fromkeys(line.title for line in lines))
    if not titles:
        return
    height = -(-len(titles) // _COLUMNS)
    figure, grid = pyplot.subplots(
        height, _COLUMNS, figsize=(5 * _COLUMNS, 2.6 * height), squeeze=False
    )
    charts = list(grid.flat)
    for chart, title in zip(charts, titles, strict=False):
        _chart(chart, title, [line for line in lines if line.title == title])
    for unused in charts[len(titles) :]:
        unused.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _chart(chart: matplotlib.axes.Axes, title: str, lines: Sequence[Line]) -> None:
    labels, at = [], 0
    for line in lines:
        for name, value in line.values.items():
            shown = value.value or 0.0
            bar = chart.barh(
                at,
                shown,
                color=_COLOURS.get(name, "#999999"),
                hatch="///" if value.lost else None,
                edgecolor="white",
            )
            text = "failed" if value.value is None else number(shown)
            chart.bar_label(bar, [f" {text}{' (lost results)' if value.lost else ''}"], fontsize=7)
            labels.append((at, f"{name}, {line.cell.broker}"))
            at += 1
        at += 1
    chart.set_yticks([y for y, _ in labels], [label for _, label in labels], fontsize=7)
    chart.invert_yaxis()
    chart.margins(x=0.25)
    figure = lines[0].figure
    chart.set_title(f"{title} ({figure.unit}, {figure.better} is better)", fontsize=8)
    chart.tick_params(axis="x", labelsize=7)
    chart.spines[["top", "right"]].set_visible(False)
