"""taskiq on Redis streams."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place
from benchmarks.model import Cell, Launch
from benchmarks.wires import TaskiqOverStreams, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Taskiq:
    """One worker process; its acks come after the result, its default."""

    name: str = "taskiq"
    family: Family = "peer"
    packages: tuple[str, ...] = ("taskiq", "taskiq-redis")

    def can(self, cell: Cell) -> bool:
        return cell.broker == "redis" and cell.task != "publish"

    def launch(self, cell: Cell, python: str) -> Launch:
        slots = str(cell.slots)
        argv = (python, "-m", "taskiq", "worker", "benchmarks.apps.streams:broker")
        options = ("--workers", "1", "--max-async-tasks", slots, "--log-level", "WARNING")
        return Launch(argv=(*argv, *options, "--max-threadpool-threads", slots))

    def wire(self, cell: Cell, place: Place) -> Wire:
        return TaskiqOverStreams(place.redis, queue=place.queue, task=cell.task)
