"""Reading the figures of an event from anybody: what is not well formed counts as not told."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final, NamedTuple

from celery_concurrent.board.fields import LARGEST_COUNT, is_count, name_of
from celery_concurrent.pool.timing import BUCKETS

#: Tasks of a node, outcomes of a task and queues of a node that are read of an event.
TASKS_OF_NODE: Final = 500
OUTCOMES_OF_TASK: Final = 16
QUEUES_OF_NODE: Final = 16

_LENGTH: Final = len(BUCKETS) + 1
# Control characters and halves of surrogate pairs: the latter cannot be encoded.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Series(NamedTuple):
    """A histogram as a node tells it: inputs per bucket, not cumulative, and their seconds."""

    counts: list[int]
    sum: float


#: Of nothing.
NOTHING: Final = Series([0] * _LENGTH, 0.0)


class Account(NamedTuple):
    """What a node has counted of one task since its start; never changed."""

    wait: Series
    run: Series
    outcomes: dict[str, int]


#: Of a task of which a node has told nothing yet.
EMPTY: Final = Account(NOTHING, NOTHING, {})


def accounts_of(
    timing: object, outcomes: object, before: dict[str, Account]
) -> dict[str, Account] | None:
    """What has changed of a node's accounts, by task; None when one of them has fallen.

    Args:
        timing, outcomes: as the event has them.
        before: all that it told before.
    """
    timings: dict[Any, Any] = timing if isinstance(timing, dict) else {}
    ends: dict[Any, Any] = outcomes if isinstance(outcomes, dict) else {}
    names = timings if timings.keys() >= ends.keys() else {**timings, **ends}
    changed: dict[str, Account] = {}
    for name in islice(names, TASKS_OF_NODE):
        last = before.get(name)
        if last is None:
            if name_of(name) is None:
                continue
            last = EMPTY
        told = _account(timings.get(name), ends.get(name), last)
        if told is last:
            continue
        if _falls(told.run, last.run) or _falls(told.wait, last.wait):
            return None
        if any(told.outcomes.get(end, 0) < count for end, count in last.outcomes.items()):
            return None
        changed[name] = told
    return changed


def _account(timing: object, outcomes: object, last: Account) -> Account:
    """``last`` itself when nothing has changed: a thousand events a second come by here."""
    told: dict[Any, Any] = timing if isinstance(timing, dict) else {}
    wait, run = last.wait, last.run
    # Lists that are equal were checked before.
    if (counts := told.get("wait")) is not None and counts != wait.counts:
        wait = _series(counts, told.get("wait_sum")) or wait
    if (counts := told.get("run")) is not None and counts != run.counts:
        run = _series(counts, told.get("run_sum")) or run
    ends = last.outcomes
    if outcomes is not None and outcomes != ends:
        ends = counts_of(outcomes, OUTCOMES_OF_TASK)
    if wait is last.wait and run is last.run and ends == last.outcomes:
        return last
    return Account(wait, run, ends)


def _series(counts: object, total: object) -> Series | None:
    if not isinstance(counts, list) or len(counts) != _LENGTH:
        return None
    seconds = seconds_of(total)
    # As quick as can be: it is done for each task of each node that has run something since.
    if seconds is None or set(map(type, counts)) != {int}:
        return None
    if min(counts) < 0 or max(counts) > LARGEST_COUNT:
        return None
    return Series(counts, seconds)


def _falls(told: Series, last: Series) -> bool:
    return told is not last and any(map(int.__lt__, told.counts, last.counts))


def counts_of(value: object, most: int) -> dict[str, int]:
    """Counts by name, less what is none; not more than ``most`` of them."""
    told: dict[Any, Any] = value if isinstance(value, dict) else {}
    return {
        name: count
        for name, count in islice(told.items(), most)
        if name_of(name) is not None and is_count(count)
    }


def seconds_of(value: object) -> float | None:
    """A span of time in seconds; None for what is none."""
    if type(value) not in (int, float):
        return None
    # Not math.isfinite: an int may be too large for it.
    return float(value) if 0 <= value <= LARGEST_COUNT else None  # type: ignore[operator,arg-type]


def label_of(name: str) -> str:
    """A name as the value of a label: whatever it holds, it can be shown and encoded."""
    return name if name.isprintable() else _UNPRINTABLE.sub("\ufffd", name)
