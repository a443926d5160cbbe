"""A thread that waits for descriptors and deadlines, and calls back."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

#: Seconds of the longest wait: the kernel counts milliseconds, and not much further than weeks.
LONGEST = 3600.0


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int: ...


class Watcher:
    """Calls back, on its own thread, when a descriptor is readable.

    Args:
        tick: called before each wait; returns the seconds until it wants to be called again,
            None for not before something happens.
    """

    def __init__(self, tick: Callable[[], float | None]) -> None:
        self._tick = tick
        self._selector = selectors.DefaultSelector()
        self._changes: deque[tuple[HasFileno, Callable[[], None] | None]] = deque()
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)
        os.set_blocking(self._bell, False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="local-nodes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, source: HasFileno, callback: Callable[[], None]) -> None:
        """From any thread: call back whenever this is readable, until it is removed."""
        self._changes.append((source, callback))
        self.wake()

    def remove(self, source: HasFileno) -> None:
        """From the watcher's own thread, before the source is closed."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):  # never got that far
            for change in [change for change in self._changes if change[0] is source]:
                self._changes.remove(change)

    def wake(self) -> None:
        """From any thread: tick now."""
        with contextlib.suppress(BlockingIOError):  # rung often enough already
            os.write(self._ringer, b"\0")

    def close(self) -> None:
        """Return when nothing is called back any more. Not from its own thread."""
        self._closing = True
        self.wake()
        self._thread.join()
        self._selector.close()
        os.close(self._bell)
        os.close(self._ringer)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:  # whatever it is, the other nodes still need their deadlines
                logger.exception("watching the nodes failed, and goes on")
                threading.Event().wait(0.5)

    def _turn(self) -> None:
        while self._changes:
            source, callback = self._changes.popleft()
            self._selector.register(source, selectors.EVENT_READ, callback)
        due = self._tick()
        for key, _ in self._selector.select(None if due is None else min(due, LONGEST)):
            if key.data is None:
                os.read(self._bell, 4096)
            elif not self._closing:
                key.data()
