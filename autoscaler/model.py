"""What a scaling policy sees and says: frozen data, nothing else.

Times are seconds of one monotonic clock, whose zero means nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


class NodeState(enum.Enum):
    """What a node is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a fleet, as it was last seen.

    Args:
        name: unique in its fleet, for as long as it lives.
        state: loading (``enter`` included), taking inputs, or finishing what it has.
        since: when it entered that state.
        running: inputs in its slots, 0 or more.
        adopted: whether an autoscaler before this one started it, nobody knows when.
    """

    name: str
    state: NodeState
    since: float
    running: int = 0
    adopted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A fleet at one instant.

    Args:
        now: when it was read.
        backlog: inputs in the broker that no node has fetched; None when the broker or a node
            did not answer, which is not zero.
        reserved: inputs that nodes have fetched and that do not run yet.
        running: inputs in slots.
        arrived, finished: how many so far, since some instant; None when nobody counts them.
        nodes: every node that lives, draining ones too.
        known: the demand as far as it is known: what the broker says, and the nodes' last words.
    """

    now: float
    backlog: int | None
    reserved: int
    running: int
    nodes: tuple[Node, ...] = ()
    arrived: int | None = None
    finished: int | None = None
    known: int = 0

    @property
    def demand(self) -> int | None:
        """All inputs that are not done; None when that is unknown."""
        return None if self.backlog is None else self.backlog + self.reserved + self.running

    @property
    def live(self) -> int:
        """The nodes that are capacity: starting ones too, draining ones not."""
        return len(self.nodes) - self.count(NodeState.DRAINING)

    @property
    def busy(self) -> int:
        """The ready nodes that hold inputs: drained, each would stay until those have ended."""
        return sum([node.state is NodeState.READY and node.running > 0 for node in self.nodes])

    def count(self, state: NodeState) -> int:
        """The nodes in this state."""
        return sum([node.state is state for node in self.nodes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many nodes a fleet should have, draining ones not counted.

    Args:
        desired: within min_nodes..max_nodes.
        reason: one line for people, with the figures that led to it.
        look_again_at: when it may change though nothing happens; None for never.
    """

    desired: int
    reason: str
    look_again_at: float | None = None


State = TypeVar("State")


class Policy(Protocol[State]):
    """Decides; pure: all it remembers is in the state, which is plain data."""

    def initial(self) -> State:
        """The state of a fleet that was never looked at."""

    def decide(self, observation: Observation, state: State) -> tuple[Decision, State]:
        """What the fleet should have now, and what to remember.

        Observations come in the order of their ``now``.
        """


AnyPolicy = Policy[Any]
