"""What the demo counts: pure data about arrivals, starts and ends of inputs, and about nodes.

All times here are seconds since the replay began, of the wall clock (not of the trace).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from celery_concurrent.demo.fleet import Fleet

_RECENT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One settled input; ``started`` and ``ended`` are None if it failed (``error`` says how).

    ``arrived`` is when the demo handed it in. Where a busy machine makes that late, the fleet is
    not to blame: :attr:`Ledger.latest_publishing` tells.
    """

    arrived: float
    node: str = ""
    started: float | None = None
    ended: float | None = None
    error: str | None = None

    @property
    def latency(self) -> float | None:
        return None if self.ended is None else self.ended - self.arrived

    @property
    def wait(self) -> float | None:
        return None if self.started is None else max(0.0, self.started - self.arrived)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the running replay; ``recent_*`` cover the last five seconds."""

    elapsed: float
    total: int
    finished: int
    fleet: Fleet
    recent_throughput: float
    recent_waits: tuple[float, ...]
    recent_latencies: tuple[float, ...]
    waits: tuple[float, ...]
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        return self.finished / self.elapsed if self.elapsed > 0 else 0.0


class Ledger:
    """Every input that was published, and what became of it; and the fleet at every look."""

    def __init__(self, *, total: int) -> None:
        self.total = total
        self.outstanding: dict[str, float] = {}
        self.outcomes: list[Outcome] = []
        #: When a look was taken, and what it saw.
        self.looks: list[tuple[float, Fleet]] = []
        self.latest_publishing = 0.0

    def publish(self, input_id: str, *, due: float, now: float) -> None:
        """Handed in ``now``, which may be later than it was ``due``."""
        self.outstanding[input_id] = now
        self.latest_publishing = max(self.latest_publishing, now - due)

    def settle(
        self,
        input_id: str,
        *,
        node: str = "",
        started: float | None = None,
        ended: float | None = None,
        error: str | None = None,
    ) -> None:
        """Once per input: an id that is unknown or settled is a KeyError."""
        arrived = self.outstanding.pop(input_id)
        self.outcomes.append(
            Outcome(arrived=arrived, node=node, started=started, ended=ended, error=error)
        )

    @property
    def finished(self) -> int:
        return len(self.outcomes)

    @property
    def failed(self) -> int:
        return sum(outcome.error is not None for outcome in self.outcomes)

    @property
    def waits(self) -> list[float]:
        """Of all that started, in ascending order."""
        return sorted(outcome.wait for outcome in self.outcomes if outcome.wait is not None)

    @property
    def latencies(self) -> list[float]:
        """Of all that ended, in ascending order."""
        return sorted(o.latency for o in self.outcomes if o.latency is not None)

    @property
    def seconds(self) -> float:
        """From the first arrival to the last look, which saw the last result."""
        return self.looks[-1][0] if self.looks else 0.0

    @property
    def node_seconds(self) -> float:
        """What all nodes cost, starting and draining ones too.

        The sum of nodes x time to the next look: a node is seen up to a look late at its start,
        and at its end.
        """
        return sum(
            len(fleet.nodes) * (after - at) for (at, fleet), (after, _) in pairwise(self.looks)
        )

    @property
    def fewest_and_most_nodes(self) -> tuple[int, int]:
        """Of those that count as capacity: not of the draining ones."""
        counts = [len(fleet.nodes) - fleet.count("draining") for _, fleet in self.looks] or [0]
        return min(counts), max(counts)

    @property
    def busiest(self) -> int:
        """The most inputs that ran at once in one node. Exact: of the inputs' own times."""
        spans: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        for outcome in self.outcomes:
            if outcome.started is not None and outcome.ended is not None:
                begins, ends = spans[outcome.node]
                begins.append(outcome.started)
                ends.append(outcome.ended)
        return max((max(steps(*span)[1]) for span in spans.values()), default=0)

    def snapshot(self, *, elapsed: float, fleet: Fleet) -> Snapshot:
        """Note a look at the fleet, and sum up."""
        self.looks.append((elapsed, fleet))
        recent = [
            outcome
            for outcome in self.outcomes
            if outcome.ended is not None
            and outcome.wait is not None
            and outcome.ended > elapsed - _RECENT
        ]
        return Snapshot(
            elapsed=elapsed,
            total=self.total,
            finished=self.finished,
            fleet=fleet,
            recent_throughput=len(recent) / min(_RECENT, elapsed) if elapsed > 0 else 0.0,
            recent_waits=tuple(sorted(o.wait for o in recent if o.wait is not None)),
            recent_latencies=tuple(sorted(o.latency for o in recent if o.latency is not None)),
            waits=tuple(self.waits),
            latencies=tuple(self.latencies),
        )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of values in ascending order; None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def seconds(value: float | None) -> str:
    """As people read them."""
    return "-" if value is None else f"{value:.2f} s"


def steps(begins: Iterable[float], ends: Iterable[float]) -> tuple[list[float], list[int]]:
    """How many of the intervals are open over time: the instants of change and the counts.

    Where one ends as another begins, the end counts first: a slot that is handed on is one slot.
    """
    changes = sorted([(at, 1) for at in begins] + [(at, -1) for at in ends])
    times, counts, count = [0.0], [0], 0
    for at, change in changes:
        count += change
        if at == times[-1]:
            counts[-1] = count
        else:
            times.append(at)
            counts.append(count)
    return times, counts
