"""Limits, and how a cap is shared out."""

from __future__ import annotations

import random
from typing import Any

import pytest

from celery_concurrent import ConfigurationError, Limits
from celery_concurrent.limits import shares


def test_target_is_max_inputs_unless_said() -> None:
    assert Limits(max_inputs=7).target == 7
    assert Limits(max_inputs=7, target_inputs=3).target == 3


@pytest.mark.parametrize("target", [1, 5])
def test_target_may_lie_at_both_ends_of_its_range(target: int) -> None:
    assert Limits(max_inputs=5, target_inputs=target).target == target


WRONG: list[Any] = [True, False, 1.0, 10.5, "10", [1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_inputs", None), *((n, v) for n in ("max_inputs", "target_inputs") for v in WRONG)],
)
def test_a_value_that_is_no_int_is_named_with_its_type_and_the_remedy(
    name: str, value: Any
) -> None:
    given = {"max_inputs": 10, name: value}
    with pytest.raises(ConfigurationError) as caught:
        Limits(**given)
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} must be an int, not {type(value).__name__}")
    assert "Write it as a whole number" in message


@pytest.mark.parametrize("value", [0, -1])
def test_max_inputs_below_one_is_refused_with_its_remedy(value: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"^max_inputs={value} must be 1 or more.*Use "):
        Limits(max_inputs=value)


@pytest.mark.parametrize("value", [0, -3, 5])
def test_target_out_of_range_is_refused_with_its_remedy(value: int) -> None:
    message = rf"^target_inputs={value} must lie in 1\.\.max_inputs=4\. Lower it"
    with pytest.raises(ConfigurationError, match=message):
        Limits(max_inputs=4, target_inputs=value)


def test_a_configuration_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="max_inputs"):
        Limits(max_inputs=0)


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Limits(max_inputs=1).max_inputs = 2  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize("cap", [None, 15, 16, 100])
def test_a_cap_that_does_not_bind_leaves_the_slots(cap: int | None) -> None:
    assert shares(cap, {"a": 10, "b": 5}) == {"a": 10, "b": 5}


def test_a_cap_is_shared_out_in_proportion() -> None:
    assert shares(6, {"a": 10, "b": 20}) == {"a": 2, "b": 4}
    assert shares(4, {"a": 3, "b": 3}) == {"a": 2, "b": 2}


def test_what_is_left_goes_to_the_largest_remainder() -> None:
    assert shares(5, {"a": 10, "b": 10, "c": 1}) == {"a": 2, "b": 2, "c": 1}


def test_every_group_keeps_a_slot_under_a_cap_below_their_number() -> None:
    assert shares(1, {"a": 10, "b": 10, "c": 1}) == {"a": 1, "b": 1, "c": 1}


def test_no_groups_share_nothing() -> None:
    assert shares(3, {}) == {}


def test_shares_keep_their_promises_for_any_groups() -> None:
    """At least one each, never more than its own, and the sum is the cap where it can be."""
    numbers = random.Random(2)
    for _ in range(2_000):
        own = {f"g{n}": numbers.randint(1, 500) for n in range(numbers.randint(1, 8))}
        cap = numbers.randint(1, sum(own.values()) + 3)
        given = shares(cap, own)
        assert given.keys() == own.keys()
        assert all(1 <= given[name] <= own[name] for name in own), (cap, own, given)
        assert sum(given.values()) == min(max(cap, len(own)), sum(own.values())), (cap, own, given)
