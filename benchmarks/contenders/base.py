"""What the measuring needs to know of a contender."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Protocol

import redis

from benchmarks.model import Cell, Family, Launch
from benchmarks.wires import CeleryOverRabbitMQ, CeleryOverRedis, Wire

__all__ = ["Contender", "Family", "Place", "celery_wire", "celery_worker", "missing_packages"]


class Contender(Protocol):
    """One way to run a queue's inputs."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> Family:
        """Ours, a pool of Celery's own as it comes or set up to lose nothing, a peer, the limit."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions that must be installed, and whose versions are noted."""

    def can(self, cell: Cell, /) -> bool:
        """Whether it offers what the cell asks for; where not, the table has a dash."""

    def launch(self, cell: Cell, /, python: str) -> Launch:
        """The command that starts its node for this cell."""

    def wire(self, cell: Cell, place: Place) -> Wire:
        """How inputs reach it."""


class Place(Protocol):
    """Where a cell happens: a fresh queue on running brokers."""

    @property
    def redis(self) -> redis.Redis: ...

    @property
    def broker_url(self) -> str: ...

    @property
    def queue(self) -> str: ...


def celery_wire(cell: Cell, place: Place) -> Wire:
    """Celery's message format on the cell's broker."""
    if cell.broker == "redis":
        return CeleryOverRedis(place.redis, place.broker_url, queue=place.queue, task=cell.task)
    return CeleryOverRabbitMQ(place.broker_url, queue=place.queue, task=cell.task)


def celery_worker(python: str, app: str, *options: str) -> Launch:
    """A Celery worker with what every Celery contender has in common.

    Gossip and mingle are off, so that nobody waits for neighbours at the start; all else
    is Celery's default: early acks for plain tasks, prefetch multiplier 4.
    """
    argv = (python, "-m", "celery", "-A", app, "worker", *options)
    return Launch(argv=(*argv, "--without-gossip", "--without-mingle", "-l", "WARNING"))


def missing_packages(packages: Sequence[str]) -> list[str]:
    missing = []
    for name in packages:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing
