"""The picture of a run: one small chart per figure, one group of bars per broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    "raw loop": "#000000",
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


def draw_growth(path: Path, lines: Sequence[Line]) -> bool:
    """Write how the rate grows with slots and with payload; False when neither was measured."""
    from matplotlib import pyplot

    rates = [line for line in lines if line.figure.key == "rate" and line.cell.kind == "async"]
    slots = [line for line in rates if line.cell.task == "nap"]
    payloads = [line for line in rates if line.cell.payload]
    if len(slots) < 2 and len(payloads) < 2:
        return False
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    _curves(left, slots, lambda line: line.cell.slots)
    sizes = sorted({line.cell.slots for line in slots})
    if sizes:
        ideal = [size / slots[0].cell.seconds for size in sizes]
        left.plot(sizes, ideal, color="#999999", linestyle=":", label="ideal")
    left.set(xlabel="slots, each input sleeps 0.1 s", ylabel="inputs/s")
    _curves(right, payloads, lambda line: line.cell.payload)
    right.set(xlabel="bytes of an input, no-op", ylabel="inputs/s")
    for chart in (left, right):
        chart.set(xscale="log", yscale="log")
        chart.grid(visible=True, color="#eeeeee")
        chart.spines[["top", "right"]].set_visible(False)
        if chart.get_legend_handles_labels()[0]:
            chart.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _curves(
    chart: matplotlib.axes.Axes, lines: Sequence[Line], size: Callable[[Line], int]
) -> None:
    for broker, style in (("redis", "-"), ("rabbitmq", "--")):
        here = sorted((line for line in lines if line.cell.broker == broker), key=size)
        for name in dict.fromkeys(name for line in here for name in line.values):
            points = [
                (size(line), value.value)
                for line in here
                if (value := line.values.get(name)) is not None
                and value.value is not None
                and not value.lost
            ]
            chart.plot(
                [x for x, _ in points],
                [y for _, y in points],
                style,
                marker=".",
                color=_COLOURS.get(name, "#999999"),
                label=f"{name}, {broker}",
            )


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
