"""Inputs per second, all queued beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import Broker, Cell, Figure, Measured, TaskName
from benchmarks.rows.base import both_kinds
from benchmarks.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """From the first input's start, noted inside it, until the last result is in Redis.

    The processor time of the node per input says the same with less noise from others.
    """

    name: str
    title: str
    task: TaskName
    seconds: float = 0.0
    figures: tuple[Figure, ...] = (
        Figure(key="rate", title="", unit="inputs/s", better="more"),
        Figure(key="cpu", title="CPU", unit="µs/input", better="less"),
    )

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        yield from both_kinds(
            Cell(
                row=self.name,
                broker=broker,
                kind="async",
                task=self.task,
                slots=1_000,
                inputs=3_000 if quick else 10_000,
                seconds=self.seconds,
                budget=6.0 if quick else 20.0,
            )
        )

    def measure(self, run: Run) -> Measured:
        keys = run.publish(run.cell.inputs)
        run.start()
        outcome = run.follow(len(keys), run.results.count)
        figures = {}
        if outcome.count:
            cpu = run.node.cpu() - run.cpu_at_first
            figures["rate"] = outcome.count / (outcome.at - run.probe.starts()[0])
            if run.node.exit_code is None:
                figures["cpu"] = cpu / outcome.count * 1_000_000
        return run.measured(figures, keys, outcome.reason, results=outcome.count)


NOOP = Throughput(name="noop", title="no-op", task="noop")
NAP = Throughput(name="nap", title="0.1 s sleep", task="nap", seconds=0.1)
