"""A replay's data: arrivals, the nodes they run in, the fleet over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One input of a trace: when it arrives, and how long it runs in a node at target."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What the nodes of a replay are like.

    Args:
        target: inputs per node up to which an input runs at full speed.
        max_inputs: inputs that a node runs at once, target or more.
        cold_start: seconds from a node's order until it takes inputs.
        slowdown: how much longer an input runs that starts at twice the target; 0 for not.

    Raises:
        ConfigurationError: a value lies outside of its range.
    """

    target: int
    max_inputs: int
    cold_start: float
    slowdown: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.target <= self.max_inputs:
            raise ConfigurationError(
                f"target={self.target!r} must lie in 1..max_inputs={self.max_inputs}"
            )
        for name in ("cold_start", "slowdown"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} must be a number of 0 or more"
                )

    def seconds(self, arrival: Arrival, running: int) -> float:
        """How long an input runs that is the ``running``-th in its node."""
        above = max(0, running - self.target) / self.target
        return arrival.seconds * (1 + self.slowdown * above)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A fleet from ``at`` to the next step."""

    at: float
    starting: int
    ready: int
    draining: int
    desired: int

    @property
    def nodes(self) -> int:
        """All that cost."""
        return self.starting + self.ready + self.draining


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a policy did with a trace.

    Args:
        waits: seconds from arrival to start, by order of arrival; infinite for an input that
            never started.
        steps: the fleet over time.
        node_seconds: what all nodes cost, their cold starts included, until ``ended``.
        ended: when the last input ended, or the instant the replay was told to last to.
        decisions: how often the policy was asked.
        starts: nodes that were ordered, those cancelled too.
        cancels: starts that were cancelled.
        drains: ready nodes that were told to leave.
    """

    waits: tuple[float, ...]
    steps: tuple[Step, ...]
    node_seconds: float
    ended: float
    decisions: int
    starts: int
    cancels: int
    drains: int

    def wait(self, share: float) -> float:
        """The wait that this share of all inputs does not exceed; 0 without inputs."""
        if not self.waits:
            return 0.0
        return sorted(self.waits)[max(0, math.ceil(share * len(self.waits)) - 1)]

    def within(self, seconds: float) -> float:
        """The share of inputs that started within so many seconds; 1 without inputs."""
        if not self.waits:
            return 1.0
        return sum(wait <= seconds for wait in self.waits) / len(self.waits)

    @property
    def peak(self) -> int:
        return max((step.nodes for step in self.steps), default=0)
