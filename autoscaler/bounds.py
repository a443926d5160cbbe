"""What both policies share: a fleet's bounds, and what they do when the backlog is unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_concurrent.autoscaler.model import Decision, Observation
from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a fleet may be.

    Args:
        target: inputs per node that the policy aims at, 1 or more.
        max_nodes: never more nodes than these, 1 or more.
        min_nodes: never fewer, in 0..max_nodes.
        buffer_nodes: so many more than needed while there is demand, 0 or more.

    Raises:
        ConfigurationError: a value lies outside of its range.
    """

    target: int
    max_nodes: int
    min_nodes: int = 0
    buffer_nodes: int = 0

    def __post_init__(self) -> None:
        for name, least in (("target", 1), ("max_nodes", 1), ("min_nodes", 0), ("buffer_nodes", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name}={getattr(self, name)!r} must be {least} or more")
        if self.min_nodes > self.max_nodes:
            raise ConfigurationError(
                f"min_nodes={self.min_nodes!r} must lie in 0..max_nodes={self.max_nodes}"
            )

    @staticmethod
    def require_number(name: str, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ConfigurationError(f"{name}={value!r} must be a number of 0 or more")

    def clamp(self, nodes: int) -> int:
        return min(self.max_nodes, max(self.min_nodes, nodes))

    def with_buffer(self, nodes: int, *, active: bool) -> int:
        """Clamped after the buffer: a buffer never leads above max_nodes."""
        return self.clamp(nodes + self.buffer_nodes) if active else nodes

    def unknown(self, observation: Observation, desired: int) -> Decision:
        """Keep what there is, for an unknown demand is not zero; go up to what is known of it."""
        held = self.clamp(max(desired, observation.live))
        wanted = self.clamp(nodes_for(observation.known, self.target))
        if wanted <= held:
            return Decision(desired=held, reason=f"demand unknown: {held} held")
        reason = f"{inputs(observation.known)} or more at {self.target} per node: {wanted} wanted"
        return Decision(desired=wanted, reason=reason)


def nodes_for(demand: int, target: int) -> int:
    """The nodes that hold so many inputs at target: demand / target, rounded up."""
    return -(-demand // target)


def inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"
