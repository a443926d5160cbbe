"""Where nodes and autoscalers send their events: Celery's event dispatcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Outlet(Protocol):
    """Where events go."""

    def send(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Send one of this type; raises when it cannot."""

    def close(self) -> None:
        """Let go of what it holds."""


class DispatcherOutlet:
    """Celery's event dispatcher on a connection of its own.

    Args:
        app: the Celery app.
        hostname: who sends.
    """

    def __init__(self, app: Any, hostname: str) -> None:
        self._connection = app.connection_for_write()
        try:
            # Each broker of a list once: the next look comes in a second.
            tries = max(1, len(self._connection.alt))
            self._connection.ensure_connection(
                max_retries=tries, interval_start=0, interval_step=0, interval_max=0
            )
            self._dispatcher = app.events.Dispatcher(
                self._connection, hostname=hostname, buffer_while_offline=False
            )
        except BaseException:
            self.close()
            raise

    def send(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Send one; fields that Celery adds itself must not be among them."""
        self._dispatcher.send(kind, **fields)

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()
