"""Our node: ``celery worker -P concurrent``."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place, celery_wire, celery_worker
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class OurNode:
    """Pool size and prefetch come from the task's ``max_inputs``."""

    name: str = "our node"
    family: Family = "ours"
    packages: tuple[str, ...] = ("celery-concurrent", "celery")

    def can(self, cell: Cell) -> bool:
        return cell.task != "publish"

    def launch(self, _cell: Cell, python: str) -> Launch:
        return celery_worker(python, "benchmarks.apps.node", "-P", "concurrent")

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)


ours = OurNode()
