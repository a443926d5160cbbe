"""One fleet of what several autoscalers say: each host has one of its own for the same queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery_concurrent.board.words import FleetWord

#: Decisions that are shown at the most.
MOST_DECISIONS: Final = 50
#: States of a fleet, the worst first.
_WORST: Final = ("failing", "held", "short", "drained")
_ADDED: Final = ("reserved", "running", "desired", "min_nodes", "max_nodes", "crashes")


def together(words: Sequence[FleetWord]) -> dict[str, Any]:
    """The fleet as it is to be shown, less its nodes.

    All autoscalers see the same backlog; nodes, their limits, and what nodes hold, each has of
    its own.

    Args:
        words: of the fleet's autoscalers, one or more.
    """
    told = [word.told for word in words]
    if len(told) == 1:
        return dict(told[0])
    sums = {name: _sum([each[name] for each in told]) for name in _ADDED}
    backlogs = [each["backlog"] for each in told if each["backlog"] is not None]
    backlog = max(backlogs, default=None)
    return {
        **told[0],
        **sums,
        "backlog": backlog,
        "demand": None if backlog is None else backlog + sums["reserved"] + sums["running"],
        "state": _worst([each["state"] for each in told]),
        "overrides": {name: value for each in told for name, value in each["overrides"].items()},
        "counts": {
            state: sum(each["counts"][state] for each in told) for state in told[0]["counts"]
        },
        "reason": _by_host(words, "reason") or "",
        "missing": _by_host(words, "missing"),
        "last_lines": [line for each in told for line in each["last_lines"]],
        "decisions": _latest([change for each in told for change in each["decisions"]]),
    }


def _sum(figures: Sequence[int | None]) -> int | None:
    """None where one of them is unknown."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


def _worst(states: Sequence[str]) -> str:
    return next((state for state in _WORST if state in states), states[0])


def _by_host(words: Sequence[FleetWord], name: str) -> str | None:
    return "; ".join(f"{word.host}: {word.told[name]}" for word in words if word.told[name]) or None


def _latest(changes: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(changes, key=lambda change: float(change["at"]))[-MOST_DECISIONS:]
