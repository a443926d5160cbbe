"""A thread that keeps one connection to the broker, and makes it anew when it is lost."""

from __future__ import annotations

import threading
from typing import Any

from celery.utils.log import get_logger

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

    def attend(self, connection: Any) -> None:
        """Use the connection until ``closing`` is set; call :meth:`is_attached` when it serves.

        Raises what the connection raises when it is lost.
        """
        raise NotImplementedError

    def is_attached(self) -> None:
        """The broker serves."""
        if self._is_lost:
            logger.info("the broker is back for %s", self._what)
        self._is_lost = False

    def _run(self) -> None:
        while not self.closing.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    connection.ensure_connection(max_retries=1, timeout=RETRY_AFTER)
                    self.attend(connection)
            except Exception as error:
                if not self._is_lost:
                    logger.warning("no %s at the broker, trying again: %r", self._what, error)
                self._is_lost = True
                self.closing.wait(RETRY_AFTER)
