"""Deliveries that come again: an input that runs here, or has just ended, does not run twice.

When a connection is lost the broker delivers again what was not acknowledged, though it runs on
in this node. The new delivery then takes the place of the lost one: what runs is settled on it
when it ends, and what has ended meanwhile is settled at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as worker_state

from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.outcomes import Outcome

logger = get_logger(__name__)

#: Outcomes kept of the last inputs, whose acknowledgements a lost connection may swallow.
KEPT_OUTCOMES = 2_000


class Redeliveries:
    """Knows what runs and what has ended; inputs may start on any thread, the rest is settling's.

    A retry has its input's id: it may start on one thread while its input settles on another.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may settle in the midst of it
        self._running: dict[str, Input] = {}
        self._ended: OrderedDict[tuple[str, int], Outcome] = OrderedDict()

    def starts(self, input: Input) -> None:
        """The input is about to run."""
        with self._lock:
            self._running[input.id] = input

    def stops(self, input: Input) -> None:
        """It runs no more."""
        with self._lock:
            if self._running.get(input.id) is input:
                del self._running[input.id]

    def remember(self, input: Input, outcome: Outcome) -> None:
        """It was settled so; an acknowledgement before the run needs no second one."""
        if not input.request.task.acks_late or outcome.is_given_back:
            return
        self._ended[input.id, _retries(input.request)] = outcome
        while len(self._ended) > KEPT_OUTCOMES:
            self._ended.popitem(last=False)

    def take_over(self, request: Any) -> bool:
        """Whether this delivery is of an input that runs here or has ended here: it is settled.

        A retry has the same id and another count; what was published twice under one id is
        not marked as redelivered: both run.
        """
        if not request.delivery_info.get("redelivered"):
            return False
        input = self._running.get(request.id)
        if input is not None and _is_same(input, request):
            lost, input.request = input.request, request
            worker_state.task_ready(lost)
            request.on_accepted(input.token, input.started_at or time.monotonic())
            logger.info("Task %s is still running here: took over its redelivery", input)
            return True
        outcome = self._ended.pop((request.id, _retries(request)), None)
        if outcome is None:
            return False
        logger.info("Task %s[%s] has ended here: settled its redelivery", request.name, request.id)
        outcome.report(request)
        return True


def _is_same(input: Input, request: Any) -> bool:
    open_ = input.ended is None and not input.dropped
    return open_ and _retries(input.request) == _retries(request)


def _retries(request: Any) -> int:
    return int(request.request_dict.get("retries") or 0)
