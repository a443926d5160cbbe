"""How many inputs a group holds beside those in its slots: few, and only while all are short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from celery_concurrent.pool.reserve import MOST, SHORT, WAIT, WINDOW, Reserves
from celery_concurrent.pool.slots import Group


def group(slots: int) -> Group[Any]:
    return Group("task", slots, slots, slots)


def after(slots: int, lengths: list[float], fixed: int | None = None) -> int:
    """The reserve of a group of so many slots whose inputs took so long."""
    reserves = Reserves(fixed)
    for seconds in lengths:
        reserves.ended("task", seconds)
    return reserves.of(group(slots))


@pytest.mark.parametrize(
    ("slots", "seconds", "expected"),
    [
        (4, 0.030, 3),  # one comes back every 7.5 ms
        (4, 0.040, 2),
        (4, 0.099, 1),
        (3, 0.099, 0),  # every 33 ms
        (1, 0.010, 1),  # never more than slots
        (1, 0.030, 0),
        (50, 0.050, 4),  # every millisecond: never more than four
        (50, 0.200, 0),  # every four milliseconds, but they may all start at once
        (200, 0.100, 0),  # every half: the processor's business
    ],
)
def test_it_follows_from_how_often_a_slot_comes_back(
    slots: int, seconds: float, expected: int
) -> None:
    assert after(slots, [seconds] * 200) == expected


def test_nothing_is_known_before_an_input_has_ended_in_each_slot() -> None:
    assert [after(3, [0.01] * count) for count in range(5)] == [0, 0, 0, 3, 3]
    assert after(3, []) == 0


def test_a_single_long_input_ends_it_for_a_hundred_and_more() -> None:
    short = [0.02] * WINDOW
    assert after(4, short) == 4
    assert after(4, [*short, 60.0]) == 0
    assert after(4, [*short, 60.0, *short[1:], *short[1:]]) == 0
    assert after(4, [*short, 60.0, *short[1:], *short]) == 4


def test_what_lasts_and_has_not_ended_counts_at_once() -> None:
    reserves = Reserves(None)
    for _ in range(WINDOW):
        reserves.ended("task", 0.02)
    reserves.lasts("task")
    assert reserves.of(group(4)) == 0


def test_groups_are_apart() -> None:
    reserves = Reserves(None)
    for _ in range(4):
        reserves.ended("another", 0.02)
    assert reserves.of(group(4)) == 0


@pytest.mark.parametrize("fixed", [0, 7])
def test_the_users_own_holds_whatever_inputs_take(fixed: int) -> None:
    assert after(2, [0.001] * 200, fixed) == fixed
    assert after(2, [60.0] * 200, fixed) == fixed


@given(
    slots=some.integers(1, 2_000),
    lengths=some.lists(some.floats(0.0, 0.2) | some.floats(0.0, 3_600.0), max_size=400),
)
def test_none_waits_long_for_what_is_as_short_as_of_late(slots: int, lengths: list[float]) -> None:
    held = after(slots, lengths)
    assert 0 <= held <= min(MOST, slots)
    if held:
        longest = max(lengths[-WINDOW:])
        assert longest <= SHORT
        assert held * longest / slots <= WAIT * 1.000_001  # rounding
