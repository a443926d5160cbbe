"""Pauses after crashes."""

from __future__ import annotations

import pytest

from celery_concurrent.autoscaler.backoff import Backoff
from celery_concurrent.errors import ConfigurationError


def crashed(times: int, **knobs: float) -> tuple[Backoff, float]:
    backoff, now = Backoff(**knobs), 0.0  # type: ignore[arg-type]  # ints among them
    for _ in range(times):
        now = max(now, backoff.not_before)
        backoff = backoff.crashed(now=now, lived=0.1)
    return backoff, now


def test_pauses_double_up_to_the_longest() -> None:
    pauses = []
    for times in range(1, 9):
        backoff, now = crashed(times, longest=30.0)
        pauses.append(backoff.wait(now))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_fleet_fails_after_so_many_crashes_in_a_row() -> None:
    assert not crashed(2)[0].failing
    assert crashed(3)[0].failing


def test_nodes_that_crash_together_count_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff = backoff.crashed(now=10.0, lived=0.1)
    assert (backoff.crashes, backoff.not_before) == (1, 11.0)


def test_a_node_that_served_long_begins_a_new_row() -> None:
    backoff, now = crashed(5)
    backoff = backoff.crashed(now=now + 100, lived=3600.0)
    assert (backoff.crashes, backoff.failing) == (1, False)


def test_an_input_that_runs_ends_the_row() -> None:
    backoff, now = crashed(5)
    assert backoff.served().wait(now) == 0.0
    assert not backoff.served().failing


def test_a_thousand_crashes_pause_no_longer() -> None:
    backoff, now = crashed(2000)
    assert backoff.wait(now) == 60.0


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"first": 0.0}, "first=0.0"),
        ({"first": 9.0, "longest": 3.0}, "longest=3.0"),
        ({"failing_after": 0}, "failing_after=0"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Backoff(**knobs)  # type: ignore[arg-type]  # ints among them
