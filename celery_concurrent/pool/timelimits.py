"""Soft and hard time limits, and what becomes of an input that does not end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger

from celery_concurrent.pool.deadlines import Deadlines
from celery_concurrent.pool.inputs import Input

logger = get_logger(__name__)

#: Seconds after which an input that was ended and runs on is told of.
DEAF_AFTER = 1.0


class TimeLimits:
    """Ends inputs that run too long.

    Args:
        deadlines: calls back in time; its thread only interrupts the input.
        post: has a call made on the settling thread.
        stuck_timeout: seconds that an ended input may run on before ``drain`` is called.
        drain: makes the node leave, on the settling thread.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        post: Callable[[Callable[[], None]], None],
        *,
        stuck_timeout: float,
        drain: Callable[[], None],
    ) -> None:
        self._deadlines = deadlines
        self._post = post
        self._stuck_timeout = stuck_timeout
        self._drain = drain

    def start(self, input: Input) -> None:
        """Its time begins."""
        if input.soft_limit:
            self._after(input.soft_limit, self._on_soft_limit, input)
        if input.hard_limit:
            self._after(input.hard_limit, self._on_hard_limit, input)

    def expect_end(self, input: Input) -> None:
        """It was ended; should it not notice, say so, and let the node be replaced."""
        self._after(DEAF_AFTER, self._report_deaf, input)
        self._after(self._stuck_timeout, self._report_stuck, input)

    @staticmethod
    def stop(input: Input) -> None:
        """It has ended."""
        for deadline in input.deadlines:
            deadline.cancel()

    def _after(self, seconds: float, call: Callable[[Input], None], input: Input) -> None:
        deadline = self._deadlines.after(seconds, partial(call, input))
        with input.lock:
            input.deadlines = (*input.deadlines, deadline)

    def _on_soft_limit(self, input: Input) -> None:
        if input.warn(SoftTimeLimitExceeded):
            self._post(partial(input.request.on_timeout, True, input.soft_limit))

    def _on_hard_limit(self, input: Input) -> None:
        if input.end(f"it ran over its hard time limit of {input.hard_limit} s"):
            self._post(partial(input.request.on_timeout, False, input.hard_limit))
            self.expect_end(input)

    def _report_deaf(self, input: Input) -> None:
        if not input.finished:
            logger.warning(
                "Task %s does not end though %s: it keeps its slot, its result will be "
                "dropped, and the node drains and exits if it still runs in %.1f s "
                "(concurrent_stuck_timeout)",
                input,
                input.ended,
                max(0.0, self._stuck_timeout - DEAF_AFTER),
            )

    def _report_stuck(self, input: Input) -> None:
        if not input.finished:
            logger.critical("Task %s is stuck: draining this node, to be replaced", input)
            self._post(self._drain)
