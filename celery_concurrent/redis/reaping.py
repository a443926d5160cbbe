"""Putting back what dead nodes had taken, from a process that is no node."""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Transport

from celery_concurrent.pool.threads import Threads
from celery_concurrent.redis.leases import Leases, quickly
from celery_concurrent.settings import NodeSettings


class Reaper:
    """Keeps a lease that holds nothing, and reaps as nodes do; where there is no Redis, nothing.

    Args:
        app: the Celery app whose broker it is.
        name: of this process, for people who read Redis' keys.
    """

    def __init__(self, app: Any, name: str) -> None:
        self._app = app
        self._settings = NodeSettings.of(app)
        self._threads = Threads("lease", most=1)
        self._leases = Leases(
            name,
            self._settings.redis_lease,
            thread=self._threads,
            changed=self._begin_again,
        )

    def start(self) -> None:
        """Look for lapsed leases from now on."""
        connection = self._app.connection_for_read()
        if self._settings.batching and connection.get_transport_cls() is Transport:
            self._leases.start(lambda timeout: quickly(connection, timeout))

    def close(self) -> None:
        """Leave it to others."""
        self._leases.close()
        self._threads.close()

    def _begin_again(self) -> None:
        if self._leases.current.is_lost:
            self._leases.begin()
