"""Slots that pass on: the next in line begins where an input has ended, on its runner.

So a slot need not wait for the settling thread, which may have a hundred things to do before it
hears that the input has ended, and that another runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.log import get_logger

from celery_concurrent.pool.inputs import Hold, Input
from celery_concurrent.pool.requests import is_in_signal_handler, is_stopping, may_follow
from celery_concurrent.pool.slots import Slots

logger = get_logger(__name__)


class Passing:
    """When slots pass on, and what has begun so.

    What always holds, under ``lock``:

    - a slot passes on only until ``_until``, which the consumer moves on as long as it knows of its
      connection, and takes back before it looks at what the node holds: what waits may be another
      node's by then;
    - an input that has begun so is in ``_begun`` until it is announced, which is before its end is
      settled.

    Args:
        announce: tells Celery's request that its input runs.
    """

    def __init__(self, announce: Callable[[Input, Any], None]) -> None:
        self.lock = threading.Lock()
        self._until = 0.0
        self._begun: deque[tuple[Input, Any]] = deque()
        self._announce = announce

    @property
    def begun(self) -> int:
        """How many inputs run that Celery still takes for reserved ones."""
        return len(self._begun)

    def allow(self, seconds: float) -> None:
        """Let slots pass on for so long from now; after 0.0 none does, and all is announced.

        To be called on the consumer's thread.
        """
        with self.lock:
            self._until = time.monotonic() + seconds if seconds else 0.0
        if not seconds:
            self.announce()

    def next_after(self, input: Input, slots: Slots[Input], hold: Hold | None) -> Input | None:
        """Who has the slot of an input that has ended; None leaves it to settling.

        To be called with the lock.

        Args:
            input: on its runner.
            slots: the node's.
            hold: under which the node has what waits.
        """
        if time.monotonic() > self._until or is_stopping() or is_in_signal_handler():
            return None
        if hold is not None and not hold.is_fresh:
            return None
        try:
            following = slots.pass_on(input, partial(may_follow, input))
        except Exception:  # a request may be of the user's own class
            logger.exception("%s starts nothing in its slot", input)
            return None
        if following is not None:
            self._begun.append((following, following.request))
        return following

    def announce(self) -> None:
        """Tell of what has begun, on the consumer's thread."""
        while self._begun:
            try:
                begun = self._begun.popleft()
            except IndexError:  # without a hub, another thread was faster
                return
            try:
                self._announce(*begun)
            except Exception:
                logger.exception("telling that an input runs failed")
