"""How long a client waits for a single input on an idle node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import Broker, Cell, Figure, Measured
from benchmarks.results import Arrivals
from benchmarks.rows.base import both_kinds, quantile
from benchmarks.run import Run

_WARM_UPS = 5
_PAUSE = 0.01  # the node falls idle again


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """From before the publishing until Redis announces the result.

    The client is the same for all: one prepared message, and a subscription to the
    results' database. What each library's own client adds is left out.
    """

    name: str = "roundtrip"
    title: str = "round trip, idle node"
    figures: tuple[Figure, ...] = (
        Figure(key="p50", title="p50", unit="ms", better="less"),
        Figure(key="p99", title="p99", unit="ms", better="less"),
    )

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        yield from both_kinds(
            Cell(
                row=self.name,
                broker=broker,
                kind="async",
                task="noop",
                slots=10,
                inputs=60 if quick else 300,
            )
        )

    def measure(self, run: Run) -> Measured:
        run.start()
        keys: list[str] = []
        trips: list[float] = []
        note = ""
        with run.results.arrivals() as arrivals:
            for index in range(run.cell.inputs):
                # The first one also waits for the node to start.
                took = _trip(run, arrivals, index, keys, timeout=20.0 if index == 0 else 5.0)
                if took is None:
                    note = f"no answer to input {index} ({run.hint() or 'no error logged'})"
                    break
                if index >= _WARM_UPS:
                    trips.append(took * 1_000)
                time.sleep(_PAUSE)
        figures = {"p50": quantile(trips, 0.5), "p99": quantile(trips, 0.99)} if trips else {}
        return run.measured(figures, keys, note, trips=len(trips))


def _trip(
    run: Run, arrivals: Arrivals, index: int, keys: list[str], *, timeout: float
) -> float | None:
    """Seconds from publishing to the result; None when it did not come."""
    begun = time.monotonic()
    (input_id,) = run.wire.publish([run.args(index, 0.0)])
    keys.append(run.wire.result_key(input_id))
    if not arrivals.wait(keys[-1], timeout=timeout):
        return None
    return time.monotonic() - begun
