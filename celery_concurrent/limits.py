"""How many inputs of one task a node runs at once: pure, validated data.

Nothing here knows Celery's worker; the autoscaler reads the same :class:`Limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The slots of one task, or of one service, in one node.

    Args:
        max_inputs: hard limit of inputs that run at once in one node, 1 or more.
        target_inputs: inputs per node that the autoscaler aims at, in 1..max_inputs;
            None means max_inputs.

    Raises:
        ConfigurationError: a value is no int or lies outside of its range.
    """

    max_inputs: int
    target_inputs: int | None = None

    def __post_init__(self) -> None:
        _require_int("max_inputs", self.max_inputs)
        if self.max_inputs < 1:
            raise ConfigurationError(
                f"max_inputs={self.max_inputs!r} must be 1 or more: it is how many inputs one "
                "node runs at once. Use max_inputs=1 to run them one by one."
            )
        if self.target_inputs is None:
            return
        _require_int("target_inputs", self.target_inputs)
        if not 1 <= self.target_inputs <= self.max_inputs:
            raise ConfigurationError(
                f"target_inputs={self.target_inputs!r} must lie in 1..max_inputs="
                f"{self.max_inputs}. Lower it, raise max_inputs, or leave it out to aim at "
                "max_inputs."
            )

    @property
    def target(self) -> int:
        """target_inputs, or max_inputs where none was given."""
        return self.max_inputs if self.target_inputs is None else self.target_inputs


def shares(cap: int | None, slots: Mapping[str, int]) -> dict[str, int]:
    """Share out ``cap`` slots among groups in proportion to what each has, by largest remainder.

    Every group keeps at least one slot, so that a full one never stops another; the sum is
    above ``cap`` only when there are more groups than ``cap``. No cap leaves all as it is.
    """
    total = sum(slots.values())
    if cap is None or cap >= total:
        return dict(slots)
    exact = {name: cap * own / total for name, own in slots.items()}
    given = {name: max(1, int(share)) for name, share in exact.items()}
    by_remainder = sorted(slots, key=lambda name: given[name] - exact[name])
    spare = cap - sum(given.values())
    for name in by_remainder[: max(0, spare)]:
        given[name] = min(slots[name], given[name] + 1)
    for name in sorted(given, key=lambda name: -given[name]):
        while spare < 0 and given[name] > 1:
            given[name] -= 1
            spare += 1
    return given


def _require_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(
            f"{name}={value!r} must be an int, not {type(value).__name__}. "
            f"Write it as a whole number, as in @concurrent(max_inputs=10)."
        )
