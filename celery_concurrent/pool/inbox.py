"""What other threads have to tell the consumer's thread, in order.

Celery's requests are settled, and their messages acknowledged, on one thread only: with a hub
(Redis and RabbitMQ) that is the consumer's, which is woken; without one it is a thread of the
inbox's own, for a consumer that blocks in its transport can't be woken. At shutdown, when
nobody runs the hub any more, :meth:`Inbox.drain` does it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

logger = get_logger(__name__)


class Inbox:
    """A queue of calls to be made on the settling thread, first in first out."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        # Reentrant: a signal handler may drain while its own thread is draining.
        self._posted = threading.Condition(threading.RLock())
        self._waiting = 0
        #: Called on the settling thread after the calls of each turn.
        self.after_drain: Callable[[], None] | None = None
        self._wake_pending = False
        self._hub: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._owner: int | None = None

    def attach(self, hub: Any) -> None:
        """Have a kombu hub's thread, the caller's, make the calls (kombu 5.7 wakes its hub)."""
        self._hub = hub
        self._owner = threading.get_ident()
        self._wake_pending = False
        if self._calls:
            self._wake()

    def start_thread(self) -> None:
        """Make the calls on a thread of the inbox's own: there is no hub."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="concurrent-settling", daemon=True
            )
            self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the caller is the settling thread."""
        return threading.get_ident() == self._owner

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` made on the settling thread, soon."""
        self._calls.append(call)
        if self._hub is not None:
            self._wake()
        if self._waiting:  # set before the waiter looks for calls, under the lock
            with self._posted:
                self._posted.notify_all()

    def drain(self, timeout: float = 0.0) -> bool:
        """Make the posted calls here and now, waiting up to ``timeout`` seconds for the first.

        Returns whether there were any. What a call raises is logged: one input's trouble must
        not keep the others from being settled.
        """
        self._wake_pending = False
        if timeout > 0 and not self._calls:
            self._wait(timeout)
        made = False
        # To the end, with what is posted meanwhile: a hub that is asked for another turn from
        # within one polls first. It is bounded, for only inputs that the node has post.
        while self._calls:
            try:
                call = self._calls.popleft()
            except IndexError:  # a nested drain was faster
                break
            made = True
            try:
                call()
            except Exception:
                logger.exception("settling an input failed")
        if made and self.after_drain is not None:
            try:
                self.after_drain()
            except Exception:  # the settling thread must outlive it
                logger.exception("what follows settling failed")
        return made

    def _wait(self, timeout: float) -> None:
        with self._posted:
            self._waiting += 1
            try:
                self._posted.wait_for(lambda: self._calls or self._closed, timeout)
            finally:
                self._waiting -= 1

    def close(self) -> None:
        """End the inbox's own thread."""
        self._closed = True
        self._hub = None
        with self._posted:
            self._posted.notify_all()

    def _wake(self) -> None:
        if not self._wake_pending:
            self._wake_pending = True
            self._hub.call_soon(self.drain)

    def _run(self) -> None:
        self._owner = threading.get_ident()
        while not self._closed:
            self.drain(timeout=1.0)
