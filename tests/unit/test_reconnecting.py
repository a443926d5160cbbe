"""A node that waits for its broker looks often, logs seldom, and gives up when Celery would."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown
from celery.worker import state
from redis.exceptions import ReadOnlyError, ResponseError

from celery_concurrent.redis.refusals import RefusedError
from celery_concurrent.worker.reconnecting import (
    CALM,
    Pace,
    Retrying,
    celerys_intervals,
    tries_for,
)


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


class Clock:
    """Goes on when somebody sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def refused(_: Any) -> None:
    raise ReadOnlyError("You can't write against a read only replica.")


def test_who_is_refused_again_and_again_waits_ever_longer(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    retrying = Retrying(refused, clock, clock.sleep)
    starts = []
    for _ in range(7):
        with pytest.raises(RefusedError, match="read only replica"):
            retrying("a consumer")
        starts.append(round(clock.now))
    assert starts == [0, 1, 3, 7, 15, 25, 35]
    assert "read only replica.: connecting again in 8 s" in caplog.text
    clock.now += CALM + 10.0
    with pytest.raises(RefusedError):
        retrying("a consumer")
    assert caplog.messages[-1].endswith("connecting again in 1 s")


def test_who_waits_stops_when_it_is_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    retrying = Retrying(refused, clock, clock.sleep)
    with pytest.raises(RefusedError):
        retrying("a consumer")
    monkeypatch.setattr(state, "should_stop", 0)
    with pytest.raises(WorkerShutdown):
        retrying("a consumer")
    assert clock.now == 0.0


def test_an_error_for_good_is_raised_as_it_is() -> None:
    def fail(_: Any) -> None:
        raise ResponseError("wrong number of arguments for 'ROOMS' command")

    with pytest.raises(ResponseError, match="ROOMS"):
        Retrying(fail)("a consumer")
