"""What inputs that only wait cost in memory, and in processor time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import Broker, Cell, Figure, Measured
from benchmarks.rows.base import both_kinds
from benchmarks.run import Run

_FOREVER = 600.0  # the node is ended while they sleep
_MB = 1_000_000
_WATCHED = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Peak resident memory of the node's whole tree while all inputs sleep at once.

    Then the processor time that it uses while they go on sleeping, over some seconds.
    """

    name: str
    inputs: int
    in_quick: bool = True
    figures: tuple[Figure, ...] = (
        Figure(key="peak", title="peak", unit="MB", better="less"),
        Figure(key="added", title="above idle", unit="MB", better="less"),
        Figure(key="cpu", title="CPU while asleep", unit="% of a core", better="less"),
    )

    @property
    def title(self) -> str:
        return f"memory, {self.inputs:,} asleep"

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        if quick and not self.in_quick:
            return
        yield from both_kinds(
            Cell(
                row=self.name,
                broker=broker,
                kind="async",
                task="nap",
                slots=self.inputs,
                inputs=self.inputs,
                seconds=_FOREVER,
                budget=15.0 if quick else 45.0,
            )
        )

    def measure(self, run: Run) -> Measured:
        run.start()
        idle = _idle(run)
        if idle is None:
            return Measured(note=f"did not start ({run.hint() or 'no error logged'})")
        peak = idle

        def asleep() -> int:
            nonlocal peak
            peak = max(peak, run.node.rss())
            return run.probe.started()

        run.publish(run.cell.inputs)
        outcome = run.follow(run.cell.inputs, asleep, poll=0.05)
        time.sleep(0.2)
        asleep()
        # A node that could not take them all in did not pay for them either.
        used = run.node.cpu()
        time.sleep(_WATCHED)
        used = run.node.cpu() - used
        figures = {
            "peak": peak / _MB,
            "added": (peak - idle) / _MB,
            "cpu": 100 * used / _WATCHED,
        }
        return Measured(
            figures=figures if outcome.is_complete else {},
            note=outcome.reason,
            detail={"idle": idle / _MB, "asleep": outcome.count},
        )


def _idle(run: Run) -> int | None:
    """Memory of the node after its first input; None when that did not end."""
    run.publish(1, seconds=0.0)
    outcome = run.follow(1, run.results.count)
    run.probe.reset()
    return run.node.rss() if outcome.is_complete else None
