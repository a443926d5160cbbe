"""How long a node's inputs waited and ran, and how they ended: counts since its start.

Counts by bucket, as Prometheus has histograms: they add up over nodes and time. Written on the
settling thread only; read on any.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from celery.exceptions import Ignore, Reject, Retry
from celery.utils.time import maybe_iso8601

from celery_concurrent.pool.inputs import LOST, Input
from celery_concurrent.pool.outcomes import Outcome
from celery_concurrent.sent import SENT_AT

#: Seconds: the upper bounds of the buckets. One more bucket has what is above them all.
BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
#: Tasks that are told apart; what comes beyond them is not counted.
MOST_TASKS: Final = 200


class Spread:
    """How often some span of time lay in each bucket.

    Attributes:
        counts: by bucket, one more than there are bounds.
        total: seconds altogether.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class _Task:
    """One task's figures."""

    __slots__ = ("outcomes", "run", "wait")

    def __init__(self) -> None:
        self.wait, self.run = Spread(), Spread()
        self.outcomes: dict[str, int] = defaultdict(int)


class Timing:
    """Of one node.

    Args:
        clock: monotonic seconds, as inputs' ``started_at`` is.
        wall: seconds since the epoch, as publishers tell when they sent an input.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._tasks: dict[str, _Task] = {}
        self._last: tuple[str, str, float] | None = None

    def started(self, input: Input) -> None:
        """It has its slot, and has started."""
        assert input.started_at is not None
        self._last = (input.id, input.name, input.started_at)
        due = _due(input.request)
        if due is not None and (task := self._task(input.name)) is not None:
            ago = self._clock() - input.started_at
            # Never below zero: two machines' clocks are not the same.
            task.wait.add(max(0.0, self._wall() - ago - due))

    def ended(self, input: Input, outcome: Outcome) -> float:
        """Its slot is about to come back, after so many seconds."""
        assert input.started_at is not None
        seconds = self._clock() - input.started_at
        task = self._task(input.name)
        if task is not None:
            task.run.add(seconds)
            task.outcomes[_outcome(input, outcome)] += 1
        return seconds

    def fields(self) -> dict[str, Any]:
        """What the node tells of it: ``timing``, ``outcomes`` and ``last_input``."""
        tasks, last = list(self._tasks.items()), self._last
        return {
            "timing": {name: _told(task) for name, task in tasks},
            "outcomes": {name: dict(task.outcomes) for name, task in tasks},
            "last_input": last
            and {"id": last[0], "task": last[1], "seconds": round(self._clock() - last[2], 3)},
        }

    def _task(self, name: str) -> _Task | None:
        task = self._tasks.get(name)
        if task is None and len(self._tasks) < MOST_TASKS:
            task = self._tasks[name] = _Task()
        return task


def _told(task: _Task) -> dict[str, Any]:
    return {
        "wait": list(task.wait.counts),
        "wait_sum": round(task.wait.total, 3),
        "run": list(task.run.counts),
        "run_sum": round(task.run.total, 3),
    }


def _due(request: Any) -> float | None:
    """When its publisher sent it, or wanted it to run; None where it does not tell."""
    fields = request.request_dict
    sent = fields.get(SENT_AT)
    if not isinstance(sent, (int, float)):
        return None
    eta = fields.get("eta")
    if eta is None:
        return sent
    try:
        return float(max(sent, maybe_iso8601(eta).timestamp()))
    except (TypeError, ValueError):
        return None


def _outcome(input: Input, outcome: Outcome) -> str:
    """In one word; the names are those of Celery's events where it has one."""
    if input.ended is not None:
        if input.ended == LOST:
            return "lost"
        return "cancelled" if input.dropped else "failed"
    if outcome.traced is not None and not outcome.traced[0]:
        return "succeeded"
    error = outcome.exception
    for kind, name in ((Retry, "retried"), (Reject, "rejected"), (Ignore, "ignored")):
        if isinstance(error, kind):
            return name
    return "failed"
