"""What the loop is given: where demand is read, and who shares out devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from celery_concurrent.autoscaler.provider import NodeProcess
from celery_concurrent.autoscaler.reports import Report
from celery_concurrent.fleets import Fleet
from celery_concurrent.gpu.device import Inventory


class BacklogSource(Protocol):
    """Reads the broker.

    Attributes:
        pause: seconds after which another reading is worth its cost.
    """

    pause: float

    def read(self, queues: Sequence[str]) -> Mapping[str, int | None]:
        """Inputs by queue; None for one that is unknown."""


class Pins(Protocol):
    """Says on which devices a fleet's next nodes run."""

    def environments(
        self, fleet: Fleet, count: int, nodes: Iterable[NodeProcess]
    ) -> tuple[list[dict[str, str]], str | None]:
        """The environments of those that fit, and what the others lack.

        Args:
            fleet: whose nodes they are.
            count: how many more are wanted.
            nodes: all nodes of all fleets that live.
        """

    def lost(self, process: NodeProcess) -> str | None:
        """Why the node cannot go on: its device is lost; None when it can."""

    def let_go(self, nodes: Iterable[NodeProcess]) -> None:
        """Leave the devices to others that none of these nodes, all that live, are on."""

    def inventory(self) -> Inventory:
        """The devices of this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What nodes have said and what waits, by node and by queue."""

    reports: Mapping[str, Report]
    backlogs: Mapping[str, int | None]
