"""A thread that calls back at given times, whatever the consumer and the loop are doing."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from celery.utils.log import get_logger

logger = get_logger(__name__)

#: Deadlines below which nobody looks for cancelled ones.
FEW = 1_000


class Deadline:
    """A call that is to be made at a time; cancelling it twice changes nothing."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Don't call back; what the call held is let go."""
        self.cancelled = True
        self.call = _nothing


class Deadlines:
    """Calls back on a thread of its own, which starts with the first deadline.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._clean_at = FEW
        # Reentrant, for a signal handler that ends inputs on the thread that has just called this.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Call back after that many seconds. ``call`` must be quick; what it raises is logged."""
        deadline = Deadline(call)
        with self._changed:
            if len(self._heap) >= self._clean_at:
                self._clean()
            heapq.heappush(self._heap, (self._clock() + seconds, next(self._order), deadline))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="concurrent-deadlines", daemon=True
                )
                self._thread.start()
            elif self._heap[0][2] is deadline:
                self._changed.notify()
        return deadline

    def close(self) -> None:
        """Call nobody back any more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

    def _clean(self) -> None:
        """Drop the cancelled ones: most inputs end long before their limits."""
        self._heap = [entry for entry in self._heap if not entry[2].cancelled]
        heapq.heapify(self._heap)
        self._clean_at = max(FEW, 2 * len(self._heap))

    def _run(self) -> None:
        while True:
            with self._changed:
                deadline = self._next()
                if deadline is None:
                    return
            if not deadline.cancelled:
                try:
                    deadline.call()
                except Exception:
                    logger.exception("a deadline's callback failed")
            del deadline

    def _next(self) -> Deadline | None:
        """Wait for the next deadline to be due; None when closed."""
        while not self._closed:
            if not self._heap:
                self._changed.wait()
                continue
            due, _, deadline = self._heap[0]
            wait = due - self._clock()
            if wait <= 0 or deadline.cancelled:
                heapq.heappop(self._heap)
                return deadline
            self._changed.wait(wait)
        return None


def _nothing() -> None:
    """What a cancelled deadline calls."""
