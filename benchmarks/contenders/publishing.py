"""Clients that publish: ``task_map``, and Celery's ``apply_async`` in a loop."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place, celery_wire
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A process that publishes a cell's inputs in its way, and ends."""

    name: str
    family: Family
    packages: tuple[str, ...] = ("celery-concurrent", "celery")

    def can(self, cell: Cell) -> bool:
        return cell.task == "publish"

    def launch(self, cell: Cell, python: str) -> Launch:
        return Launch(argv=(python, "-m", "benchmarks.apps.publish", self.name, str(cell.inputs)))

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)


task_map = Client(name="task_map", family="ours")
apply_async = Client(name="apply_async", family="pool")
