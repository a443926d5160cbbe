"""From what was measured to what is said of it: medians, ratios, losses."""

from __future__ import annotations

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.model import Cell, Entry, Measured
from benchmarks.rows import ROWS
from benchmarks.summary import Line, behind, losses, summarise

CELLS = {
    kind: Cell(row="noop", broker="redis", kind=kind, task="noop", slots=1, inputs=1)
    for kind in ("async", "sync")
}


def entries(contender: str, kind: str, *rates: float, lost: int = 0) -> list[Entry]:
    return [
        Entry(
            contender=contender,
            cell=CELLS[kind],
            repeat=number,
            measured=Measured(figures={"rate": rate}, lost=lost),
        )
        for number, rate in enumerate(rates)
    ]


def rates(given: list[Entry]) -> dict[str, Line]:
    lines = summarise(given, ROWS, CONTENDERS)
    return {line.cell.kind: line for line in lines if line.figure.key == "rate"}


def test_medians_are_compared_with_the_best_of_celerys_pools() -> None:
    line = rates(
        [
            *entries("our node", "sync", 100, 300, 900),
            *entries("celery threads", "sync", 150, 150),
            *entries("celery prefork", "sync", 200, 1_000, 10),
            *entries("celery threads late", "sync", 60),
            *entries("taskiq", "sync", 600),
        ]
    )["sync"]
    assert line.values["our node"].value == 300
    assert line.ratios == pytest.approx({"best of Celery": 1.5, "late acks": 5.0, "taskiq": 0.5})
    assert behind([line]) == []


def test_async_inputs_are_compared_with_plain_functions_in_celerys_pools() -> None:
    lines = rates([*entries("our node", "async", 50), *entries("celery threads", "sync", 100)])
    assert lines["async"].ratios == {"best of Celery": 0.5}
    assert behind(list(lines.values())) == [(lines["async"], 0.5)]


def test_less_is_better_where_the_figure_says_so() -> None:
    cell = Cell(row="refill", broker="redis", kind="sync", task="nap", slots=4, inputs=1)
    given = [
        Entry(contender=name, cell=cell, repeat=0, measured=Measured(figures={"p50": value}))
        for name, value in (("our node", 2.0), ("celery threads", 1.0), ("celery gevent", 3.0))
    ]
    lines = {line.figure.key: line for line in summarise(given, ROWS, CONTENDERS)}
    assert lines["p50"].ratios == {"best of Celery": 0.5}


def test_who_loses_results_is_told_and_is_nobody_to_be_compared_with() -> None:
    given = [
        *entries("our node", "sync", 100),
        *entries("celery gevent", "sync", 900, 900, lost=2),
        *entries("celery threads", "sync", 50),
    ]
    line = rates(given)["sync"]
    assert line.ratios == {"best of Celery": 2.0}
    assert line.values["celery gevent"].lost == 4
    assert losses(given) == {("celery gevent", "redis", "noop-sync"): 4}
