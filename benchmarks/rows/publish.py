"""How fast one client publishes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model import Broker, Cell, Figure, Measured
from benchmarks.run import Run

_WARM_UPS = 10  # see benchmarks.apps.publish


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """From the first input to the return of the call that publishes the last, in one process.

    No node runs. Connecting is left out, handles are made, results are not waited for. The
    messages are counted in the broker afterwards.
    """

    name: str = "publish"
    title: str = "publishing"
    figures: tuple[Figure, ...] = (
        Figure(key="rate", title="", unit="inputs/s", better="more"),
        Figure(key="cpu", title="CPU", unit="µs/input", better="less"),
    )

    def cells(self, broker: Broker, *, quick: bool) -> Iterator[Cell]:
        yield Cell(
            row=self.name,
            broker=broker,
            kind="sync",
            task="publish",
            slots=1,
            inputs=2_000 if quick else 10_000,
            budget=60.0,
        )

    def measure(self, run: Run) -> Measured:
        run.start()
        count = run.cell.inputs
        deadline = time.monotonic() + run.cell.budget
        while run.node.exit_code is None:
            if time.monotonic() > deadline:
                return Measured(note=f"cut after {run.cell.budget:g} s")
            time.sleep(0.01)
        if run.node.exit_code != 0:
            return Measured(note=f"died ({run.hint() or f'exit {run.node.exit_code}'})")
        took = json.loads(run.node.output.splitlines()[-1])
        lost = count + _WARM_UPS - len(run.wire.remaining())
        return Measured(
            figures={"rate": count / took["seconds"], "cpu": took["cpu"] / count * 1_000_000},
            lost=lost,
        )
