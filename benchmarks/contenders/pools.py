"""Celery's own pools."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.contenders.base import Family, Place, celery_wire, celery_worker
from benchmarks.model import Cell, Launch
from benchmarks.wires import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryPool:
    """A stock worker with one of Celery's pools and plain tasks.

    Args:
        late: with the promises of our node, late acks and no reserve, instead of Celery's
            defaults (see :mod:`benchmarks.apps.late`).
    """

    pool: str
    max_slots: int
    noop_slots: int
    late: bool = False
    packages: tuple[str, ...] = ("celery",)

    @property
    def family(self) -> Family:
        return "late pool" if self.late else "pool"

    @property
    def name(self) -> str:
        return f"celery {self.pool} late" if self.late else f"celery {self.pool}"

    def can(self, cell: Cell) -> bool:
        return cell.kind == "sync" and self._slots(cell) is not None

    def launch(self, cell: Cell, python: str) -> Launch:
        slots = self._slots(cell)
        app = "benchmarks.apps.late" if self.late else "benchmarks.apps.plain"
        return celery_worker(python, app, "-P", self.pool, "-c", str(slots))

    def wire(self, cell: Cell, place: Place) -> Wire:
        return celery_wire(cell, place)

    def _slots(self, cell: Cell) -> int | None:
        """What it runs at once; None for what it is not given."""
        match cell.task:
            case "noop":
                # Needs no room of its own: the pool may be as small as suits it.
                return self.noop_slots
            case "model":
                blocks = self.pool in {"gevent", "eventlet"}
                return None if self.late or blocks else cell.slots
            case "nap":
                return cell.slots if cell.slots <= self.max_slots else None
            case _:
                return None


# For the no-op each pool has the size at which it was quickest (10, 100 and 1,000 were
# tried): more slots only cost it more connections. A process per input has its end soon.
prefork = CeleryPool(pool="prefork", max_slots=8, noop_slots=2)
threads = CeleryPool(pool="threads", max_slots=10_000, noop_slots=100)
gevent = CeleryPool(pool="gevent", max_slots=10_000, noop_slots=100, packages=("celery", "gevent"))
eventlet = CeleryPool(
    pool="eventlet", max_slots=10_000, noop_slots=100, packages=("celery", "eventlet")
)
late_prefork = replace(prefork, late=True)
late_threads = replace(threads, late=True)
