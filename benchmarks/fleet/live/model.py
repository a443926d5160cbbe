"""What is measured and what came of it: frozen data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from benchmarks.fleet.live.servers import Servers
from benchmarks.model import Broker
from benchmarks.rows.base import quantile

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measurement of a row.

    Args:
        row: its name.
        broker: on which.
        queues: how many fleets the autoscaler keeps.
        busy: whether a node is there, and full, when the input arrives.
        fresh: whether nodes are started as processes of their own, unforked.
        nodes: how many there are that only tell their state.
        samples: how often it is measured.
    """

    row: str
    broker: Broker
    queues: int = 1
    busy: bool = False
    fresh: bool = False
    nodes: int = 0
    samples: int = 1

    @property
    def name(self) -> str:
        if self.nodes:
            return f"{self.nodes:,} nodes in {self.queues} fleets"
        queues = f"{self.queues:,} queue{'s' if self.queues > 1 else ''}"
        if self.row == "idle":
            return f"idle, {queues}"
        start = f"from {'one' if self.busy else 'zero'}, {'fresh' if self.fresh else 'forked'}"
        return f"{start}, {queues}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of one case.

    Args:
        case: which.
        what: from when to when, or whose.
        unit: of the values.
        values: one per sample.
        most: what the p99 may be; None where nothing is promised.
    """

    case: Case
    what: str
    unit: str
    values: tuple[float, ...]
    most: float | None = None

    @property
    def p50(self) -> float:
        return quantile(list(self.values), 0.5)

    @property
    def p99(self) -> float:
        return quantile(list(self.values), 0.99)

    @property
    def holds(self) -> bool:
        """Whether it keeps what is promised."""
        return self.most is None or self.p99 <= self.most


class Row(Protocol):
    """A kind of measurement."""

    @property
    def name(self) -> str: ...

    def cases(self, broker: Broker, *, repeat: int, quick: bool) -> Iterator[Case]:
        """What is measured on one broker; ``repeat`` is how often, where that is a choice."""

    def measure(self, case: Case, servers: Servers, tell: Tell) -> list[Line]:
        """Measure one case; ``tell`` hears how many samples there are.

        Raises:
            BenchmarkError: there are none, and why.
        """
