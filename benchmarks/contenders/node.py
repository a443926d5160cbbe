"""Our node: ``celery worker -P concurrent``."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place, celery_wire, celery_worker
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class OurNode:
    """Pool size and prefetch come from the task's ``max_inputs``.

    Args:
        app: the module of the app that it serves.
    """

    name: str = "our node"
    family: Family = "ours"
    packages: tuple[str, ...] = ("celery-concurrent", "celery")
    app: str = "benchmarks.apps.node"

    def can(self, cell: Cell) -> bool:
        # A reserve is for one thing only.
        return cell.task != "publish" and (self.family == "ours" or cell.row == "refill")

    def launch(self, _cell: Cell, python: str) -> Launch:
        return celery_worker(python, self.app, "-P", "concurrent")

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)


ours = OurNode()
#: As Celery's pools, it has the next input in memory.
ahead = OurNode(name="our node ahead", family="ours ahead", app="benchmarks.apps.ahead")
