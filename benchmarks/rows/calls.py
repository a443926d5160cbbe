"""Calls per input: the figure without noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.calls import CallCounter
from benchmarks.model import Broker, Cell, Figure, Measured
from benchmarks.rows.base import both_kinds
from benchmarks.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of functions, in Python and in C, that a node makes per no-op input, backlog waiting.

    Two runs of the same code differ by a percent or two, for batches do.
    """

    name: str = "calls"
    title: str = "calls, no-op"
    figures: tuple[Figure, ...] = (
        Figure(key="calls", title="", unit="calls/input", better="less"),
    )

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:  # noqa: ARG002
        yield from both_kinds(
            Cell(
                row=self.name,
                broker=broker,
                kind="async",
                task="noop",
                slots=100,
                inputs=2_000,
                counts_calls=True,
                families=("ours", "pool"),
                budget=30.0,
            )
        )

    def measure(self, run: Run) -> Measured:
        counter = CallCounter.create(run.calls_path)
        keys = run.publish(run.cell.inputs)
        run.start()
        # Without the start, and without the turns in which the backlog ends.
        early = run.follow(len(keys) // 4, run.results.count)
        before = counter.count
        late = run.follow(len(keys) * 3 // 4, run.results.count)
        counted = counter.count - before
        outcome = run.follow(len(keys), run.results.count)
        counter.close()
        figures = {}
        if late.is_complete and counted:
            figures["calls"] = counted / (late.count - early.count)
        return run.measured(figures, keys, outcome.reason)
