"""A thread that keeps one connection to the broker, and makes it anew when it is lost."""

from __future__ import annotations

import threading
from typing import Any

from celery.utils.log import get_logger

from celery_concurrent.brokers import hear, listening, reach

logger = get_logger(__name__)

#: Seconds between attempts to connect again.
RETRY_AFTER = 1.0


class Attached:
    """Says once that the broker is away, and once that it is back.

    Args:
        app: the Celery app.
        name: of the thread.
        what: it has from the broker, for people.
    """

    def __init__(self, app: Any, name: str, what: str) -> None:
        self._app = app
        self._what = what
        self._is_lost = False
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End it; does not wait for a broker that does not answer."""
        self.closing.set()
        self._thread.join(2.0)

    def consume(self, connection: Any) -> None:
        """Have what comes on the connection handled."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self.closing.is_set():
            try:
                with listening(self._app) as connection:
                    reach(connection)
                    self.consume(connection)
                    self._tell_found()
                    hear(connection, self.closing)
            except Exception as error:
                if not self._is_lost:
                    logger.warning("no %s at the broker, trying again: %r", self._what, error)
                self._is_lost = True
                self.closing.wait(RETRY_AFTER)

    def _tell_found(self) -> None:
        if self._is_lost:
            logger.info("the broker is back for %s", self._what)
        self._is_lost = False
