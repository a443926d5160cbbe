"""A run: which cases, in which order, and what came of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet.live.idle import Idle
from benchmarks.fleet.live.model import Case, Line, Row
from benchmarks.fleet.live.servers import servers
from benchmarks.fleet.live.starts import Starts
from benchmarks.fleet.live.ticks import Ticks
from benchmarks.model import Broker

ROWS: tuple[Row, ...] = (Starts(), Idle(), Ticks())

#: Hears which case it is, and how many of its samples there are.
Watch = Callable[[Case, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for on the command line.

    Args:
        brokers: which.
        rows: names of rows.
        cases: parts of names of cases; empty for all.
        repeat: nodes that are started per case.
        quick: fewer and shorter cases.
    """

    brokers: tuple[Broker, ...]
    rows: tuple[str, ...]
    cases: tuple[str, ...] = ()
    repeat: int = 50
    quick: bool = False

    def steps(self) -> Sequence[tuple[Row, Case]]:
        """All that is to be measured, in its order."""
        return [
            (row, case)
            for row in ROWS
            if row.name in self.rows
            for broker in self.brokers
            for case in row.cases(broker, repeat=self.repeat, quick=self.quick)
            if not self.cases or any(word in case.name for word in self.cases)
        ]


def carry_out(plan: Plan, watch: Watch) -> Iterator[list[Line]]:
    """The figures of one case after the other; the servers live as long as the iteration."""
    steps = plan.steps()
    with (
        tempfile.TemporaryDirectory(prefix="bench-fleet-") as folder,
        servers(Path(folder), {case.broker for _, case in steps}) as running,
    ):
        for row, case in steps:
            watch(case, 0)
            yield row.measure(case, running, lambda count, case=case: watch(case, count))  # type: ignore[misc]
