"""How a consumer connects, and what is left of a connection that is lost.

Celery's internals that are used here (5.6 and 5.7): ``Consumer.connect``, ``connection_for_read``,
``ensure_connected``, ``on_connection_error_after_connected`` and ``blueprint.start`` (which runs
until the connection is lost).
"""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

from celery_concurrent.pool.core import NodePool
from celery_concurrent.redis.preparing import prepare
from celery_concurrent.worker.reconnecting import Retrying, look_often


class ConnectingConsumer(Consumer):
    """Looks often for a broker that is away, and takes one that refuses for one that is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.blueprint.start = Retrying(self.blueprint.start)
        #: What the connection's transport does at each turn of the hub; kombu leaves it there.
        self._ticks: set[Any] = set()

    def connect(self) -> Any:
        before = set() if self.hub is None else set(self.hub.on_tick)
        connection = super().connect()
        if self.hub is not None:
            self._ticks = self.hub.on_tick - before
        return connection

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        connection = super().connection_for_read(heartbeat=heartbeat)
        if node_pool(self).settings.batching:
            prepare(connection)
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        look_often(conn)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if self.hub is not None:
            self.hub.on_tick.difference_update(self._ticks)
        super().on_connection_error_after_connected(exc)


def node_pool(consumer: Any) -> NodePool:
    """The consumer's pool, which is one of ours."""
    pool = consumer.pool
    assert isinstance(pool, NodePool)
    return pool
