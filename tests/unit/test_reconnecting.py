"""A node that waits for its broker looks often, logs seldom, and gives up when Celery would."""

from __future__ import annotations

from itertools import islice

from celery_concurrent.worker.reconnecting import Pace, celerys_intervals, tries_for


def test_celerys_intervals_grow_to_half_a_minute() -> None:
    assert list(islice(celerys_intervals(), 16))[-3:] == [28.0, 30.0, 30.0]


def test_errors_are_passed_on_when_celery_would_have_tried() -> None:
    now = 0.0
    told: list[tuple[float, float]] = []
    pace = Pace(lambda error, wait: told.append((now, wait)), clock=lambda: now)
    for second in range(13):
        now = float(second)
        pace(OSError(), 1.0)
    assert told == [(0.0, 2.0), (2.0, 4.0), (6.0, 6.0), (12.0, 8.0)]


def test_a_switch_to_an_alternate_broker_is_told_at_once() -> None:
    told: list[float] = []
    pace = Pace(lambda error, wait: told.append(wait), clock=lambda: 0.0)
    for interval in (1.0, 0, 1.0, 0):
        pace(OSError(), interval)
    assert told == [2.0, 0, 0]


def test_giving_up_takes_as_long_as_with_celery() -> None:
    assert tries_for(3) == 2 + 4 + 6
    assert tries_for(None) is None
    assert tries_for(0) == 0
