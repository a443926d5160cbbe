"""Results of many inputs in one round trip to Redis.

Celery's own code decides what is stored (it never overwrites a stored success, and knows of
expiry, waiters, ``result_extended`` and serializers): for a batch it runs on a backend that
answers reads from one MGET and collects writes (:mod:`.encoding`), which go out together
(:mod:`.storing`). When a batch fails, each of its results is stored in the plain way, with
Celery's own retries.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.backends.base import _is_request_ignore_result
from celery.states import SUCCESS

from celery_concurrent.bridge import Unbroken, in_tracer, wait_for_future
from celery_concurrent.pool.hops import Hopper, HoppingBackend, Outcome
from celery_concurrent.pool.inputs import current_input
from celery_concurrent.pool.threads import Threads
from celery_concurrent.redis.encoding import (
    Arguments,
    Recorder,
    encodes_at_once,
    is_short,
    outcome_of,
)
from celery_concurrent.redis.refusals import RefusedError, refusals_as_lost_connections
from celery_concurrent.redis.storing import Storing, Write

#: Seconds for which an input counts as young: no broker has delivered it to another node.
YOUNG = 2.0

#: Results in one pipeline at the most.
LARGEST_BATCH = 500


class Result:
    """One result on its way, and who waits for it to be stored."""

    __slots__ = ("arguments", "key", "may_be_stored", "outcome", "settle")

    def __init__(
        self,
        key: Any,
        arguments: Arguments,
        *,
        may_be_stored: bool,
    ) -> None:
        self.key = key
        self.may_be_stored = may_be_stored
        self.arguments = arguments
        #: Called with the outcome, on the writer's thread.
        self.settle: Callable[[Outcome], None]
        self.outcome: Outcome = (True, None)


class ResultWriter:
    """Stores results in batches, one at a time: what comes in meanwhile is the next batch.

    While nothing is written, a sync input writes its own result, in no thread but its own, and an
    async input sends its own from the event loop, if it is a short one; everything else the
    writer's thread does. Whoever has set ``_is_writing`` writes, and hands over by leaving it set:
    the writer's thread is there from the start, for one that cannot be started would leave it so.

    Args:
        make_backend: makes a RedisBackend.
        thread: runs the writer; one that does not end when it is idle.
        hopper: brings outcomes back to the event loop.
        sends_from_loop: whether the event loop's thread may use a socket of redis-py's.
    """

    def __init__(
        self,
        make_backend: Callable[[], Any],
        thread: Threads,
        hopper: Hopper,
        *,
        sends_from_loop: bool,
    ) -> None:
        self._plain = make_backend()
        self._sends_from_loop = sends_from_loop and encodes_at_once(self._plain)
        self._recorder = Recorder(make_backend())
        self._storing = Storing()
        self._thread = thread
        self._hopper = hopper
        self._lock = threading.Lock()
        self._waiting: deque[Result] = deque()
        self._is_writing = False
        thread.submit(_start)

    def store(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """``store_result`` of Celery's backends; returns when the result is stored."""
        key = self._plain.get_key_for_task(task_id)
        arguments = ((task_id, *args), kwargs)
        result = Result(key, arguments, may_be_stored=_may_be_stored(arguments))
        if in_tracer():
            loop = asyncio.get_running_loop()
            future = Unbroken(loop=loop)
            result.settle = partial(self._hopper.deliver, loop, future)
            if not self._send(result):
                self._submit(result)
            return wait_for_future(future)
        if _is_interruptible() or not self._lead(result):
            stored = threading.Event()
            result.settle = lambda _: stored.set()
            self._submit(result)
            stored.wait()
        succeeded, value = result.outcome
        if not succeeded:
            raise value
        return value

    def _lead(self, result: Result) -> bool:
        """Write one's own result at once; False when others are being written."""
        with self._lock:
            if self._is_writing:
                return False
            self._is_writing = True
        try:
            self._write([result])
        finally:
            with self._lock:
                self._is_writing = start = bool(self._waiting)
            if start:
                self._thread.submit(self._write_all)
        return True

    def _send(self, result: Result) -> bool:
        """Send one's own result at once, on the loop; False when it has to wait for others."""
        if not self._sends_from_loop or result.may_be_stored or not is_short(result.arguments):
            return False
        with self._lock:
            if self._is_writing:
                return False
            self._is_writing = True
        writes: list[Write] = []
        is_sent = False
        try:
            writes = self._encode([result], {})
            is_sent = len(writes) == 1 and self._storing.send(writes[0])
        finally:
            self._thread.submit(partial(self._finish, result, writes, is_sent))
        return True

    def _finish(self, result: Result, writes: list[Write], is_sent: bool) -> None:
        try:
            if is_sent:
                self._storing.see_stored()
            else:
                self._storing.write(self._plain.client, writes)
        except Exception:
            self._write([result])
        result.settle(result.outcome)
        self._write_all()

    def _submit(self, result: Result) -> None:
        with self._lock:
            self._waiting.append(result)
            start, self._is_writing = not self._is_writing, True
        if start:
            self._thread.submit(self._write_all)

    def _write_all(self) -> None:
        while True:
            with self._lock:
                batch = [
                    self._waiting.popleft() for _ in range(min(LARGEST_BATCH, len(self._waiting)))
                ]
                if not batch:
                    self._is_writing = False
                    return
            self._write(batch)
            for result in batch:
                result.settle(result.outcome)

    def _write(self, batch: list[Result]) -> None:
        try:
            # Celery's retries are for a write alone, and a result begins with a read: the
            # batch is retried as a whole, or a Redis that restarts would lose the results.
            self._plain.ensure(self._write_together, (batch,))
        except Exception:
            self._storing.close()  # where one connection is all there is, it is needed now
            for result in batch:
                result.outcome = outcome_of(self._plain.store_result, result.arguments)

    def _write_together(self, batch: list[Result]) -> None:
        client = self._plain.client
        keys = [result.key for result in batch if result.may_be_stored]
        try:
            with refusals_as_lost_connections():
                self._storing.write(client, self._encode(batch, self._storing.read(client, keys)))
        except RefusedError:
            # It is tried again, in a failover on the server that is the master by then.
            self._storing.close()
            client.connection_pool.disconnect()
            raise

    def _encode(self, batch: list[Result], stored: dict[Any, Any]) -> list[Write]:
        recorder = self._recorder
        recorder.begin(stored)
        for result in batch:
            # A result that cannot be encoded is that input's failure, not the batch's.
            result.outcome = recorder.store(result.key, result.arguments)
        return recorder.writes


class BatchingBackend(HoppingBackend):
    """A RedisBackend in a node: results of inputs go through the writer."""

    def __init__(self, resolve: Callable[[], Any], hopper: Hopper, writer: ResultWriter) -> None:
        super().__init__(resolve, hopper)
        vars(self)["_writer"] = writer

    def store_result(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store one result, with others."""
        return self._writer.store(task_id, *args, **kwargs)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = SUCCESS,
    ) -> None:
        """As Celery's (backends/base.py, 5.6 and 5.7), with the two steps made apart."""
        if store_result and not _is_request_ignore_result(request):
            self.store_result(task_id, result, state, request=request)
        if request and request.chord:
            self.on_chord_part_return(request, state, result)


def _start() -> None:
    """The first work of the writer's thread."""


def _may_be_stored(arguments: Arguments) -> bool:
    """Whether another run of this input may have stored a success, which must stay.

    Not for the success of a first delivery that has just begun: there is no other run yet. So
    most results need no look, and no round trip for it.
    """
    (_, _, state, *_), kwargs = arguments
    request, input = kwargs.get("request"), current_input()
    if state != SUCCESS or request is None or input is None:
        return True
    redelivered = (request.delivery_info or {}).get("redelivered")
    return bool(redelivered) or input.age > YOUNG


def _is_interruptible() -> bool:
    """Whether a time limit may be raised right here, for the user's function is running."""
    input = current_input()
    return input is None or not input.left
