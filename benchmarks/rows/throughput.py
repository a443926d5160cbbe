"""Inputs per second, all queued beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import KINDS, Broker, Cell, Family, Figure, Kind, Measured, TaskName
from benchmarks.run import Outcome, Run

RATE = (
    Figure(key="rate", title="", unit="inputs/s", better="more"),
    Figure(key="cpu", title="CPU", unit="µs/input", better="less"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """From the first input's start, noted inside it, until the last result is in Redis.

    The processor time of the node per input says the same with less noise from others.
    """

    name: str
    title: str
    task: TaskName
    seconds: float = 0.0
    slots: int = 1_000
    payload: int = 0
    inputs: int = 10_000
    quick_inputs: int | None = 3_000
    families: tuple[Family, ...] | None = None
    kinds: tuple[Kind, ...] = KINDS
    figures: tuple[Figure, ...] = RATE

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        inputs = self.quick_inputs if quick else self.inputs
        if inputs is None:
            return
        for kind in self.kinds:
            yield Cell(
                row=self.name,
                broker=broker,
                kind=kind,
                task=self.task,
                slots=self.slots,
                inputs=inputs,
                seconds=self.seconds,
                payload=self.payload,
                families=self.families,
                measures_rate=True,
                budget=6.0 if quick else 20.0,
            )

    def measure(self, run: Run) -> Measured:
        keys = run.publish(run.cell.inputs)
        run.start()
        outcome = run.follow(len(keys), run.results.count)
        return run.measured(rate_of(run, outcome), keys, outcome.reason, results=outcome.count)


def rate_of(run: Run, outcome: Outcome) -> dict[str, float]:
    """The figures of :data:`RATE`."""
    figures = {}
    if outcome.count:
        cpu = run.node.cpu() - run.cpu_at_first
        figures["rate"] = outcome.count / (outcome.at - run.probe.starts()[0])
        if run.node.exit_code is None:
            figures["cpu"] = cpu / outcome.count * 1_000_000
    return figures


#: How many sleep at once in the rows of growth; 1,000 are a row of their own, with everybody in it.
SLOTS = (10, 100, 10_000)
PAYLOADS = {100: 5_000, 1_000: 5_000, 10_000: 3_000, 100_000: 1_000, 1_000_000: 200}


def _growth() -> Iterator[Throughput]:
    for slots in SLOTS:
        yield Throughput(
            name=f"slots-{slots}",
            title=f"0.1 s sleep, {slots:,} at once",
            task="nap",
            seconds=0.1,
            slots=slots,
            inputs=min(20_000, 30 * slots),
            quick_inputs=None,
            families=("ours", "peer"),
            kinds=("async",),
        )
    for payload, inputs in PAYLOADS.items():
        yield Throughput(
            name=f"payload-{payload}",
            title=f"no-op with {payload:,} bytes",
            task="noop",
            payload=payload,
            inputs=inputs,
            quick_inputs=None,
            families=("ours", "peer", "limit"),
            kinds=("async",),
        )


GROWTH = tuple(_growth())
NOOP = Throughput(name="noop", title="no-op", task="noop")
NAP = Throughput(name="nap", title="0.1 s sleep", task="nap", seconds=0.1)
