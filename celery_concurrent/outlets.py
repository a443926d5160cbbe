"""Where nodes and autoscalers send their events: Celery's event dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from celery.utils.log import get_logger

from celery_concurrent.brokers import reach

logger = get_logger(__name__)


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
            reach(self._connection)
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


class KeptOutlet:
    """An outlet that is connected when there is something to send, and anew when it is lost.

    For one thread. What cannot be sent is not kept. That is told once, and once that it is over.

    Args:
        connect: gives an outlet; raises when it cannot.
        lost: told with the name of the error's type, which has no URL in it as its text may.
        again: told when something goes out again.
    """

    def __init__(self, connect: Callable[[], Outlet], *, lost: str, again: str) -> None:
        self._connect = connect
        self._lost = lost
        self._again = again
        self._outlet: Outlet | None = None
        #: Whether the last one could not be sent.
        self.is_failing = False

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._outlet is not None

    def send(self, events: Iterable[tuple[str, Mapping[str, Any]]]) -> bool:
        """Send these, each a type and its fields; False when one of them could not be sent."""
        try:
            for kind, fields in events:
                if self._outlet is None:
                    self._outlet = self._connect()
                self._outlet.send(kind, fields)
                self._tell_success()
        except Exception as error:  # of the broker's, the network's, the serializer's
            self._tell_failure(error)
            self.close()
            return False
        return True

    def close(self) -> None:
        """Let go of the connection. Idempotent; the next event makes another."""
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            try:
                outlet.close()
            except Exception as error:
                logger.debug("closing the connection of events failed: %r", error)

    def _tell_success(self) -> None:
        if self.is_failing:
            self.is_failing = False
            logger.info(self._again)

    def _tell_failure(self, error: Exception) -> None:
        if not self.is_failing:
            self.is_failing = True
            logger.warning(self._lost, type(error).__name__)
