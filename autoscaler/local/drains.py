"""Asking nodes to finish, and ending those that take too long."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable

from celery_concurrent.autoscaler.local.records import Records
from celery_concurrent.autoscaler.local.tended import Tended
from celery_concurrent.autoscaler.provider import ProcessState

logger = logging.getLogger(__name__)


class Drains:
    """Drains nodes; called under the provider's lock.

    What always holds: a node is marked before it is told to drain, unless there is no room for
    the mark. The next autoscaler goes on with what is marked, and tells it again, which is the
    same as once.

    Args:
        records: keep the marks.
        clock: monotonic seconds.
    """

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock

    def begin(self, node: Tended, timeout: float | None) -> None:
        """Ask it to finish within so many seconds; None for as long as it takes.

        One that has not said who it is yet is asked when it does.
        """
        self._mark(node, math.inf if timeout is None else timeout)
        if node.handle is not None:
            node.handle.signal(signal.SIGTERM)

    def end(self, node: Tended) -> None:
        """End it now, or as soon as it says who it is."""
        if node.handle is not None:
            node.handle.signal(signal.SIGKILL)
        else:
            self._mark(node, 0.0)

    def resume(self, node: Tended, timeout: float | None) -> None:
        """Go on with a node that has just been found, if it was told to drain.

        Args:
            node: its process is known.
            timeout: for one whose mark could not be written.
        """
        assert node.handle is not None
        until = self._records.draining_until(node.name)
        if until is not None:
            self._enter(node, until - _since_boot())
            node.handle.signal(signal.SIGTERM)
        elif node.drained:
            self.begin(node, timeout)

    def end_overdue(self, nodes: Iterable[Tended]) -> None:
        """End those whose time is over."""
        now = self._clock()
        for node in nodes:
            if node.deadline is not None and node.deadline <= now and node.handle is not None:
                logger.warning("node %s did not drain in time and is ended", node.name)
                node.deadline = None
                node.handle.signal(signal.SIGKILL)

    def _mark(self, node: Tended, timeout: float) -> None:
        node.drained = True
        try:
            self._records.mark_draining(node.name, _since_boot() + timeout)
        except OSError as error:
            logger.warning("node %s drains unmarked: %s", node.name, error)
        if node.handle is not None:
            self._enter(node, timeout)

    def _enter(self, node: Tended, timeout: float) -> None:
        now = self._clock()
        node.enter(ProcessState.DRAINING, now)
        node.deadline = now + timeout


def _since_boot() -> float:
    """Seconds on a clock that the next autoscaler reads, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
