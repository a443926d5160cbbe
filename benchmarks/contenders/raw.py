"""A bare loop: how fast Python could be if nothing were promised."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place, celery_wire
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLoop:
    """One process that loses what it holds when it dies; for inputs that never wait."""

    name: str = "raw loop"
    family: Family = "limit"
    packages: tuple[str, ...] = ("redis",)

    def can(self, cell: Cell) -> bool:
        return cell.broker == "redis" and cell.task == "noop" and cell.measures_rate

    def launch(self, _cell: Cell, python: str) -> Launch:
        return Launch(argv=(python, "-m", "benchmarks.apps.raw"))

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)
