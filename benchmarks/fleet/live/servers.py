"""The servers of a run, and the folder in which all of it lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.model import BenchmarkError, Broker
from benchmarks.services import RabbitMQ, Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Redis, for the results too, and RabbitMQ where a case needs it."""

    redis: Redis
    rabbitmq: RabbitMQ | None
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def broker(self, broker: Broker) -> Redis | RabbitMQ:
        if broker == "redis":
            return self.redis
        if self.rabbitmq is None:
            raise BenchmarkError("a RabbitMQ case was asked for and no RabbitMQ was started")
        return self.rabbitmq

    def url(self, broker: Broker) -> str:
        server = self.broker(broker)
        return server.url if isinstance(server, RabbitMQ) else server.url(Redis.BROKER)

    def fresh_folder(self) -> Path:
        """An empty one, and an empty Redis; its name was never given before."""
        self.redis.clear()
        folder = self.folder / f"case-{next(self._numbers)}"
        folder.mkdir()
        return folder


@contextmanager
def servers(folder: Path, brokers: set[Broker]) -> Iterator[Servers]:
    """They live as long as the block."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis"))
        rabbitmq = None
        if "rabbitmq" in brokers:
            rabbitmq = stack.enter_context(RabbitMQ(folder / "rabbitmq"))
        yield Servers(redis=redis, rabbitmq=rabbitmq, folder=folder)
