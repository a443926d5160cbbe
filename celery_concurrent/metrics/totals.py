"""The sums that a tally keeps: of tasks and of queues, so many of them and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import add, sub
from typing import Final, Generic, TypeVar

from celery_concurrent.metrics.telling import Account, Series, label_of
from celery_concurrent.pool.timing import BUCKETS

#: Upper bounds of a node's start-up time in seconds: a model may take minutes to load.
STARTUP_BUCKETS: Final = (
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0),
)
#: What everything for which there is no room is counted under.
OTHERS: Final = "(others)"
#: Outcomes of a task at the most, and causes of a queue.
MOST_KINDS: Final = 24
#: Outcomes that every task begins with: a counter's first step cannot be seen unless it was 0.
_COMMON_OUTCOMES: Final = ("succeeded", "failed")

T = TypeVar("T")


class Histogram:
    """Counts by bucket, not cumulative.

    Args:
        bounds: upper bounds of the buckets; one more is above all of them.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add_more(self, now: Series, before: Series) -> None:
        """Add what ``now`` has more than ``before``."""
        if now is before:
            return
        self.counts = list(map(add, self.counts, map(sub, now.counts, before.counts)))
        # Rounded where it was told: what has hardly grown may seem to have fallen.
        self.sum += max(0.0, now.sum - before.sum)

    def observe(self, value: float) -> None:
        """Add one value."""
        place = sum(1 for bound in self.bounds if value > bound)
        self.counts[place] += 1
        self.sum += value

    def copy(self) -> Histogram:
        """One that stays as this is now."""
        copy = Histogram(self.bounds)
        copy.counts, copy.sum = self.counts.copy(), self.sum
        return copy


@dataclass(slots=True)
class TaskTotals:
    """All inputs of a task, wherever they ran."""

    wait: Histogram = field(default_factory=lambda: Histogram(BUCKETS))
    run: Histogram = field(default_factory=lambda: Histogram(BUCKETS))
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COMMON_OUTCOMES, 0))

    def add(self, now: Account, before: Account) -> None:
        """Add what a node has told more than before."""
        self.wait.add_more(now.wait, before.wait)
        self.run.add_more(now.run, before.run)
        if now.outcomes is not before.outcomes:
            add_counts(self.outcomes, now.outcomes, before.outcomes)

    def copy(self) -> TaskTotals:
        """One that stays as this is now."""
        return TaskTotals(self.wait.copy(), self.run.copy(), self.outcomes.copy())


@dataclass(slots=True)
class QueueTotals:
    """All nodes of a queue, and the decisions about its fleet."""

    startup: Histogram = field(default_factory=lambda: Histogram(STARTUP_BUCKETS))
    idle: float = 0.0
    decisions: dict[str, int] = field(default_factory=dict)

    def copy(self) -> QueueTotals:
        """One that stays as this is now."""
        return QueueTotals(self.startup.copy(), self.idle, self.decisions.copy())


class Room(Generic[T]):
    """Totals by label, made as they are asked for; beyond ``most`` names all share one.

    Args:
        make: gives new totals.
        most: names, beside :data:`OTHERS`.
    """

    def __init__(self, make: Callable[[], T], most: int) -> None:
        self.all: dict[str, T] = {}
        self._make = make
        self._most = most

    def of(self, name: str) -> T:
        """The totals of a name."""
        found = self.all.get(name)
        if found is not None:
            return found
        label = label_of(name)
        if label not in self.all and len(self.all) >= self._most:
            label = OTHERS
        return self.all.setdefault(label, self._make())


def add_counts(totals: dict[str, int], now: dict[str, int], before: dict[str, int]) -> None:
    """Add to each count what ``now`` has more than ``before``."""
    for name, count in now.items():
        label = label_of(name)
        if label not in totals and len(totals) >= MOST_KINDS:
            label = OTHERS
        totals[label] = totals.get(label, 0) + max(0, count - before.get(name, 0))
