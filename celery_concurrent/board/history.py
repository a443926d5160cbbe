"""A fleet's last hour: every second of the last minutes, the peaks of each ten seconds before."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from celery_concurrent.board.fields import maybe_count, number_of

#: Seconds that are kept by the second, and by the peak.
FINE: Final = 300.0
COARSE: Final = 3600.0
#: Samples that are taken from somebody else at the most.
MOST: Final = 1_000
_FINE_STEP: Final = 1.0
_COARSE_STEP: Final = 10.0


class Sample(NamedTuple):
    """A fleet at one instant.

    ``at`` is seconds since the epoch; ``backlog`` is None while it is unknown; ``target`` and
    ``most`` are what its starting and ready nodes aim at, and run at the most.
    """

    at: float
    backlog: int | None
    reserved: int
    running: int
    starting: int
    ready: int
    draining: int
    target: int
    most: int

    @classmethod
    def all_of(cls, columns: Mapping[str, Any]) -> list[Sample]:
        """From columns, as anybody may have sent them; rows with other values are left out."""
        told = [columns.get(name) for name in cls._fields]
        if not all(isinstance(column, list) for column in told):
            return []
        rows = list(zip(*told, strict=False))[:MOST]
        return [cls(*row) for row in rows if _is_sample(row)]


def _is_sample(row: Sequence[Any]) -> bool:
    at, backlog, *others = row
    return (
        number_of(at) is not None
        and (backlog is None or maybe_count(backlog) is not None)
        and all(maybe_count(figure) is not None for figure in others)
    )


class History:
    """Samples of one fleet, in the order of their time."""

    def __init__(self) -> None:
        self._fine: deque[Sample] = deque()
        self._coarse: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """Keep it; one of the same second takes the last one's place, of the same ten its peak."""
        _put(self._fine, sample, step=_FINE_STEP, longest=FINE, merged=_later)
        _put(self._coarse, sample, step=_COARSE_STEP, longest=COARSE, merged=_peak)

    def recall(self, fine: Sequence[Sample], coarse: Sequence[Sample]) -> None:
        """Put what somebody else has kept before what was added here; both in order of time."""
        for ring, told, longest in ((self._fine, fine, FINE), (self._coarse, coarse, COARSE)):
            first = ring[0].at if ring else math.inf
            last = ring[-1].at if ring else max((sample.at for sample in told), default=0.0)
            before = [sample for sample in told if last - longest <= sample.at < first]
            ring.extendleft(sorted(before, reverse=True, key=lambda sample: sample.at))

    def last(self, seconds: float) -> list[Sample]:
        """Those of so many seconds before the last one, the oldest first."""
        ring = self._fine if seconds <= FINE else self._coarse
        if not ring:
            return []
        oldest = self._fine[-1].at - seconds
        return [sample for sample in ring if sample.at >= oldest]


def _put(
    ring: deque[Sample],
    sample: Sample,
    *,
    step: float,
    longest: float,
    merged: Callable[[Sample, Sample], Sample],
) -> None:
    if ring and sample.at // step <= ring[-1].at // step:
        ring[-1] = merged(ring[-1], sample)
    else:
        ring.append(sample)
    while ring[0].at < sample.at - longest:
        ring.popleft()


def _later(_before: Sample, sample: Sample) -> Sample:
    return sample


def _peak(before: Sample, sample: Sample) -> Sample:
    """Of each figure the larger one: what is short must not fall between two samples."""
    return Sample(
        sample.at,
        max((told for told in (before.backlog, sample.backlog) if told is not None), default=None),
        *map(max, before[2:], sample[2:]),
    )
