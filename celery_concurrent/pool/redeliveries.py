"""Deliveries that come again: an input that runs here, or has just ended, does not run twice.

When a connection is lost the broker delivers again what was not acknowledged, though it runs on
in this node. The new delivery then takes the place of the lost one: what runs is settled on it
when it ends, and what has ended meanwhile is settled at once.

It must be the same message. Two may have one id: a task that replaces itself
(``Task.replace``), an id that is used again, a call that was published twice; and a node may be
delivered again what another had fetched and not run.
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
from celery_concurrent.sent import SENT_AT

logger = get_logger(__name__)

#: What tells an input's messages apart.
_Call = tuple[str, int, Any]

#: Outcomes kept of the last inputs, whose acknowledgements a lost connection may swallow, and for
#: how many seconds: a broker notices such a loss within some heartbeats.
KEPT_OUTCOMES, KEPT_SECONDS = 2_000, 600.0


class Redeliveries:
    """Knows what runs and what has ended; inputs may start on any thread, the rest is settling's.

    A retry has its input's id: it may start on one thread while its input settles on another.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may settle in the midst of it
        self._running: dict[str, Input] = {}
        self._ended: OrderedDict[_Call, tuple[Outcome, Any, float]] = OrderedDict()
        #: Whether nodes give back what they have not run: then a redelivered message is another
        #: one where the connection of the first has not been lost.
        self.may_be_given_back = False

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
        origin, now = _origin(input.request.message), time.monotonic()
        self._ended[_call(input.request)] = outcome, origin, now
        while len(self._ended) > KEPT_OUTCOMES:
            self._ended.popitem(last=False)

    def take_over(self, request: Any) -> bool:
        """Whether this delivery is of an input that runs here or has ended here: it is settled.

        What was published twice under one id runs twice.
        """
        if not request.delivery_info.get("redelivered"):
            return False
        input = self._running.get(request.id)
        if input is not None and self._is_same(input, request):
            lost, input.request = input.request, request
            worker_state.task_ready(lost)
            request.on_accepted(input.token, input.started_at or time.monotonic())
            logger.info("Task %s is still running here: took over its redelivery", input)
            return True
        call = _call(request)
        outcome, origin, at = self._ended.get(call, (None, None, 0.0))
        if outcome is None or time.monotonic() > at + KEPT_SECONDS:
            return False
        if not self._may_be_from(origin, request.message):
            return False
        del self._ended[call]
        logger.info("Task %s[%s] has ended here: settled its redelivery", request.name, request.id)
        outcome.report(request)
        return True

    def _is_same(self, input: Input, request: Any) -> bool:
        return (
            input.ended is None
            and not input.dropped
            and _call(input.request) == _call(request)
            and self._may_be_from(_origin(input.request.message), request.message)
        )

    def _may_be_from(self, origin: Any, message: Any) -> bool:
        """Whether a redelivered message may be the one that has come from there.

        One of a virtual transport has its tag for good. AMQP delivers again what a lost connection
        had been sent.
        """
        again = _origin(message)
        if isinstance(origin, str) or isinstance(again, str):
            return bool(origin == again)
        connection = getattr(again, "connection", None)
        return (
            not self.may_be_given_back
            or connection is None
            or connection is not getattr(origin, "connection", None)
        )


def _call(request: Any) -> _Call:
    """The id, the count of retries, and when it was published, where that is told."""
    fields = request.request_dict
    return request.id, int(fields.get("retries") or 0), fields.get(SENT_AT)


def _origin(message: Any) -> Any:
    """Where a message has come from: its tag, or the channel of AMQP, where tags are numbers."""
    tag = getattr(message, "delivery_tag", None)
    return tag if isinstance(tag, str) else getattr(message, "channel", None)
