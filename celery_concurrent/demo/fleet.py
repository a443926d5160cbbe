"""One look at the fleet: the part of its status that the demo shows and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the autoscaler tells it; ``state`` is starting, ready or draining."""

    name: str
    state: str
    running: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision that changed the number of nodes; ``at`` is in seconds since the epoch."""

    at: float
    before: int
    after: int
    reason: str
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet at one instant; ``demand`` and ``backlog`` are None while nobody knows them."""

    demand: int | None = 0
    backlog: int | None = 0
    running: int = 0
    desired: int = 0
    reason: str = ""
    nodes: tuple[Node, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Fleet:
        """From what ``celery fleet status --json`` says of one fleet."""
        return cls(
            demand=status["demand"],
            backlog=status["backlog"],
            running=status["running"] + status["reserved"],
            desired=status["desired"],
            reason=status["reason"],
            nodes=tuple(_node(node) for node in status["nodes"]),
            decisions=tuple(Decision(**decision) for decision in status["decisions"]),
        )

    def count(self, state: str) -> int:
        return sum(node.state == state for node in self.nodes)

    def counted(self) -> str:
        """As in "2 starting, 4 ready"."""
        counts = Counter(node.state for node in self.nodes)
        return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no nodes"

    def is_settled(self, nodes: int) -> bool:
        return self.count("ready") == len(self.nodes) == self.desired == nodes


def _node(status: Mapping[str, Any]) -> Node:
    return Node(
        name=status["name"].partition("@")[0],
        state=status["state"],
        running=status["running"],
        device=", ".join(device["uuid"] for device in status["devices"]) or "-",
    )
