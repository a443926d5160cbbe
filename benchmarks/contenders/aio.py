"""aio-celery on RabbitMQ: coroutines only, its results in Redis."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Family, Place, celery_wire
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class AioCelery:
    """It reads Celery's own messages, so it is fed as Celery is."""

    name: str = "aio-celery"
    family: Family = "peer"
    packages: tuple[str, ...] = ("aio-celery",)

    def can(self, cell: Cell) -> bool:
        return cell.broker == "rabbitmq" and cell.kind == "async"

    def launch(self, cell: Cell, python: str) -> Launch:
        argv = (python, "-m", "aio_celery", "worker", "benchmarks.apps.aio:app")
        options = ("-c", str(cell.slots), "-l", "WARNING")
        return Launch(argv=(*argv, *options))

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)
