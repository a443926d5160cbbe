"""A whole run: every contender in every cell, in turns, so that noise hits all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.model import Broker, Cell, Entry, Measured
from benchmarks.rows import Row
from benchmarks.run import Brokers
from benchmarks.services import RabbitMQ, Redis

Watch = Callable[["Step", int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for on the command line."""

    brokers: tuple[Broker, ...]
    rows: tuple[Row, ...]
    contenders: tuple[Contender, ...]
    repeat: int = 1
    quick: bool = False
    stall: float = 5.0
    appendonly: str = "no"

    def steps(self) -> Sequence[Step]:
        """Everything to be done, in its order: repetitions outermost, contenders innermost."""
        return list(self._steps())

    def _steps(self) -> Iterator[Step]:
        for repeat in range(self.repeat):
            for broker in self.brokers:
                for row in self.rows:
                    for cell in row.cells(broker, quick=self.quick):
                        for contender in self.contenders:
                            if _takes_part(contender, cell):
                                yield Step(row=row, cell=cell, contender=contender, repeat=repeat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One contender in one cell."""

    row: Row
    cell: Cell
    contender: Contender
    repeat: int


def _takes_part(contender: Contender, cell: Cell) -> bool:
    families = cell.families
    return contender.can(cell) and (families is None or contender.family in families)


def carry_out(plan: Plan, watch: Watch) -> Iterator[Entry]:
    """Do the plan's steps one after the other, each on empty brokers.

    The brokers live as long as the iteration. A contender that fails is an entry with a
    note; only a failure of the measuring itself is raised.
    """
    steps = plan.steps()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        redis = stack.enter_context(Redis(folder / "redis", appendonly=plan.appendonly))
        rabbitmq = None
        if any(step.cell.broker == "rabbitmq" for step in steps):
            rabbitmq = stack.enter_context(RabbitMQ(folder / "rabbitmq"))
        brokers = Brokers(redis=redis, rabbitmq=rabbitmq, folder=folder, stall=plan.stall)
        for step in steps:
            measured = _measure(brokers, step, watch)
            yield Entry(
                contender=step.contender.name,
                cell=step.cell,
                repeat=step.repeat,
                measured=measured,
            )


def _measure(brokers: Brokers, step: Step, watch: Watch) -> Measured:
    watch(step, 0)
    with brokers.run(step.contender, step.cell, lambda count: watch(step, count)) as run:
        return step.row.measure(run)
