"""Polling without a hub, where other green threads run: only sockets that are still open.

kombu's poller (``kombu.utils.eventio``, 5.7) keeps descriptors by number, and its Redis
transport leaves the number of a connection that it has closed itself in there: it reckons with
``select`` to say EBADF. By then the number may be another green thread's socket, which nobody
else may wait for; and eventlet's asyncio hub says ValueError, which ends the worker.
"""

from __future__ import annotations

from typing import Any

from kombu.utils import eventio
from kombu.utils.compat import fileno


class OpenPoller(eventio._select):
    """Forgets what was closed since it was registered; no green thread runs in between."""

    def __init__(self) -> None:
        super().__init__()
        #: What was registered, sockets or numbers, by the number it had.
        self._registered: dict[int, Any] = {}

    def register(self, fd: Any, events: int) -> int:
        number: int = super().register(fd, events)
        self._registered[number] = fd
        return number

    def unregister(self, fd: Any) -> None:
        for number, registered in list(self._registered.items()):
            if registered is fd or number == fd:
                del self._registered[number]
                super().unregister(number)

    def poll(self, timeout: float | None) -> Any:
        for number, registered in list(self._registered.items()):
            if fileno(registered) != number:  # a closed socket has none
                self.unregister(registered)
        return super().poll(timeout)


def poll_open_sockets(transport: Any) -> None:
    """Have a kombu transport that polls without a hub do so; others are left as they are."""
    cycle: Any = getattr(transport, "cycle", None)
    if type(getattr(cycle, "poller", None)) is eventio._select:
        cycle.poller = OpenPoller()
