"""What a row is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from benchmarks.model import KINDS, Broker, Cell, Figure, Measured
from benchmarks.run import Run


class Row(Protocol):
    """A kind of measurement with its cells and figures."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def figures(self) -> tuple[Figure, ...]: ...

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        """The cells of this row on one broker, async before sync."""

    def measure(self, run: Run) -> Measured:
        """Let a contender do the run's cell; never raises for what a contender does."""


def both_kinds(cell: Cell) -> Iterator[Cell]:
    """The cell once per kind of function."""
    for kind in KINDS:
        yield replace(cell, kind=kind)


def quantile(values: list[float], share: float) -> float:
    """The value at or below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
