"""A model on a GPU: inputs per second, and what the node takes of the device's memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import KINDS, Broker, Cell, Figure, Kind, Measured
from benchmarks.rows.throughput import RATE, rate_of
from benchmarks.run import Run
from celery_concurrent.gpu.nvml import inventory

_MIB = 1024**2
# Two calls of 64 texts; and as many calls of one as a GPU has use for.
_SLOTS: dict[Kind, int] = {"async": 128, "sync": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGpu:
    """A text encoder in each contender's process or processes, an input for each text.

    A sync input calls the model for its one text. Async ones that wait at the same time are
    put into one call, which is what an event loop makes easy.
    """

    name: str = "model"
    title: str = "a model on a GPU"
    figures: tuple[Figure, ...] = (
        *RATE,
        Figure(key="memory", title="memory of the GPU", unit="MiB", better="less"),
    )

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        if importlib.util.find_spec("torch") is None or not inventory().devices:
            return
        for kind in KINDS:
            yield Cell(
                row=self.name,
                broker=broker,
                kind=kind,
                task="model",
                slots=_SLOTS[kind],
                inputs=5_000 if quick else 20_000,
                families=("ours", "pool"),
                measures_rate=True,
                budget=10.0 if quick else 30.0,
                patience=120.0,
            )

    def measure(self, run: Run) -> Measured:
        keys = run.publish(run.cell.inputs)
        run.start()
        outcome = run.follow(len(keys), run.results.count)
        figures = rate_of(run, outcome)
        pids = set(run.node.pids())
        used = [
            process.memory
            for device in inventory().devices
            for process in device.processes or ()
            if process.pid in pids and process.memory is not None
        ]
        if used:
            figures["memory"] = sum(used) / _MIB
        return run.measured(figures, keys, outcome.reason, results=outcome.count)
