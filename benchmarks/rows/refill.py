"""How long a freed slot stays empty while inputs wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import Broker, Cell, Figure, Measured
from benchmarks.rows.base import both_kinds, quantile
from benchmarks.run import Run

_SPREAD = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """From an input's end to the start of the input that takes its slot.

    With S slots full, the k-th end frees a slot and the (k+S)-th start takes it: which
    thread or coroutine it was does not matter. The inputs' lengths differ, so that slots
    fall free one by one.
    """

    name: str = "refill"
    title: str = "refill of a slot"
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
                task="nap",
                slots=4,
                inputs=200 if quick else 600,
                seconds=0.02,
            )
        )

    def measure(self, run: Run) -> Measured:
        cell = run.cell
        lengths = [cell.seconds * (1 + index % _SPREAD / _SPREAD) for index in range(cell.inputs)]
        each = (run.args(index, length) for index, length in enumerate(lengths))
        keys = [run.wire.result_key(input_id) for input_id in run.wire.publish(each)]
        run.start()
        outcome = run.follow(len(keys), run.results.count)
        starts, ends = run.probe.starts(), run.probe.ends()
        # The first round fills empty slots and wakes the node up: it is not a refill.
        gaps = [
            max(0.0, start - end) * 1_000
            for start, end in zip(starts[2 * cell.slots :], ends[cell.slots :], strict=False)
        ]
        figures = {"p50": quantile(gaps, 0.5), "p99": quantile(gaps, 0.99)} if gaps else {}
        return run.measured(figures, keys, outcome.reason, refills=len(gaps))
