"""What an engine does for the autoscaler: start nodes, end them, say which there are.

One implementation per engine. None of them decides anything: which fleet gets how many nodes,
on which devices, and what follows when a node fails, is the loop's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from celery_concurrent.errors import ConcurrencyError

#: The names in a node's environment that pin it to devices, by UUID.
PIN = "CUDA_VISIBLE_DEVICES"


def pinned(env: Mapping[str, str]) -> tuple[str, ...]:
    """The UUIDs of the devices to which a node with this in its environment is pinned."""
    return tuple(device for device in env.get(PIN, "").split(",") if device)


class ProviderError(ConcurrencyError, RuntimeError):
    """The engine cannot do what it was asked for; the message says what is missing."""


class NodeStartError(ProviderError):
    """A node could not be started: no process or descriptor, no room for its record, no rights.

    If there is a process all the same, it is listed, and drained. Starting another one later may
    work.
    """


class ProcessState(enum.Enum):
    """What the engine knows of a node; what the node itself is doing, its events tell."""

    #: Asked for, and not running yet.
    PENDING = "pending"
    RUNNING = "running"
    #: Told to finish what it has.
    DRAINING = "draining"
    ENDED = "ended"


class FleetSpec(Protocol):
    """What a provider must know of a fleet."""

    @property
    def queue(self) -> str:
        """The queue that the fleet's nodes consume."""

    @property
    def gpus(self) -> float:
        """GPUs of each node; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """A node as its engine sees it.

    Args:
        name: Celery's node name, ``name@host``, never given twice.
        queue: what it consumes.
        state: as above.
        since: when it entered that state, on the provider's clock; an adopted node counts
            from its adoption.
        began: when it was started, or adopted, on the same clock.
        env: what was added to its environment.
        pid: its process, where the engine has such a thing.
        exit_code: of a node that has ended: minus the signal's number when one ended it, None
            when nobody can tell (an adopted node is no child of this process).
        adopted: whether it was started by an autoscaler before this one.
        drained: whether it was told to leave, by this autoscaler or one before it.
        last_lines: the end of its log, once it has ended.
    """

    name: str
    queue: str
    state: ProcessState
    since: float
    began: float
    env: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None
    exit_code: int | None = None
    adopted: bool = False
    drained: bool = False
    last_lines: tuple[str, ...] = ()

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.state is not ProcessState.ENDED

    @property
    def devices(self) -> tuple[str, ...]:
        """The UUIDs of the devices it is pinned to."""
        return pinned(self.env)


class Provider(Protocol):
    """Starts, drains, stops and lists the nodes of all fleets of one app, on one engine.

    Its methods may be called from any thread and return soon: none waits for a node to start
    or to end, but ``close(stop_all=True)``.
    """

    def start(self, fleet: FleetSpec, env: Mapping[str, str]) -> str:
        """Start a node with this added to its environment; returns its name.

        Raises:
            NodeStartError: it could not be started.
        """

    def drain(self, name: str) -> None:
        """Have it finish what it has, and leave; it is ended when it takes too long.

        Nothing happens to a node that drains already, has ended, or is not known.
        """

    def stop(self, name: str) -> None:
        """End it now; its inputs go back to the broker. Forgets a node that has ended."""

    def list(self) -> Sequence[NodeProcess]:
        """Every node there is, and those that ended since: these until they are stopped."""

    def close(self, *, stop_all: bool = False) -> None:
        """Let go of the nodes, which run on; or drain them all, and return when they are gone."""
