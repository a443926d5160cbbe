"""Elements on their way through one call for many of them.

What always holds, for each function and event loop:

1. At most one call runs. Its end starts the next one.
2. While none runs and something waits, a timer is set, which starts one.
3. Whoever waits gets an outcome, whatever becomes of the call, or stops waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from celery.utils.log import get_logger

from celery_concurrent.batches import stuck
from celery_concurrent.batches.calls import Call, Raised
from celery_concurrent.errors import BatchError, ConfigurationError

logger = get_logger(__name__)

Waiter = asyncio.Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How much goes into a call, and how long the first of it waits for others.

    Args:
        max_batch_size: the most elements in one call, 1 or more.
        max_wait: seconds, 0 or more.

    Raises:
        ConfigurationError: a value that cannot work.
    """

    max_batch_size: int
    max_wait: float

    def __post_init__(self) -> None:
        size, wait = self.max_batch_size, self.max_wait
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"max_batch_size={size!r} must be an int of 1 or more")
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < 3600:
            raise ConfigurationError(
                f"max_wait={wait!r} must be seconds in 0.0..3600.0: how long the first element "
                "waits for others"
            )


class Batches:
    """One function of a list, and whoever waits for a result of it, on any event loop.

    Args:
        call: runs the function.
        rule: see there.
    """

    def __init__(self, call: Call, rule: Rule) -> None:
        self._call = call
        self._rule = rule
        self._lock = threading.Lock()
        self._gatherings: WeakKeyDictionary[asyncio.AbstractEventLoop, Gathering] = (
            WeakKeyDictionary()
        )

    async def result_of(self, element: Any) -> Any:
        """The function's result for this element; to be awaited on an event loop.

        Raises:
            Exception: what the function raised or returned for it.
            BatchError: the function returned something else than a result per element, was
                cancelled by what it awaits, or is stuck.
        """
        loop = asyncio.get_running_loop()
        gathering = self._gatherings.get(loop) or self._gathering_on(loop)
        outcome = await gathering.outcome_of(loop, element)
        if not isinstance(outcome, Raised):
            return outcome
        try:
            if isinstance(outcome.error, asyncio.CancelledError):  # none of the callers was
                raise BatchError(f"a call of {self._call.name} was cancelled") from outcome.error
            # All have the same error: each one's traceback begins where it came from.
            raise outcome.error.with_traceback(outcome.traceback)
        finally:
            del outcome  # or this frame and the traceback would keep each other

    def _gathering_on(self, loop: asyncio.AbstractEventLoop) -> Gathering:
        with self._lock:
            # One that was closed in the midst of something is held by what waits there.
            for known in [known for known in self._gatherings if known.is_closed()]:
                del self._gatherings[known]
            return self._gatherings.setdefault(loop, Gathering(self._call, self._rule))


class Gathering:
    """What waits on one event loop, and the call that runs; touched on that loop's thread only.

    It must not keep the loop, by which it is found and with which it is to go.
    """

    def __init__(self, call: Call, rule: Rule) -> None:
        self._call = call
        self._rule = rule
        self._waiting: OrderedDict[Waiter, Any] = OrderedDict()
        # The call that runs, which nobody else may hold (asyncio does not), and who is in it.
        self._running: asyncio.Future[Any] | None = None
        self._batch: list[Waiter] = []
        self._timer: asyncio.Handle | None = None
        # Of a call that nobody waits for any more, and what those get who come behind it then.
        self._deadlines: list[asyncio.Handle] = []
        self._stuck: Raised | None = None
        # Of the callbacks here, which would keep an input's otherwise.
        self._context = Context()

    async def outcome_of(self, loop: asyncio.AbstractEventLoop, element: Any) -> Any:
        """Stand in line until there is an outcome."""
        if self._stuck is not None:
            return self._stuck
        waiter: Waiter = loop.create_future()
        self._waiting[waiter] = element
        if self._running is None:
            if len(self._waiting) >= self._rule.max_batch_size:
                self._begin(loop)
            elif self._timer is None:
                # With 0, too, it waits for what the loop has ready now.
                wait = self._rule.max_wait
                self._timer = loop.call_later(wait, self._begin, loop, context=self._context)
        try:
            return await waiter
        except BaseException:
            self._leave(loop, waiter)
            raise

    def _leave(self, loop: asyncio.AbstractEventLoop, waiter: Waiter) -> None:
        """The caller waits no longer."""
        self._waiting.pop(waiter, None)
        if loop.is_closed():
            return
        waiter.cancel()
        if waiter in self._batch and all(one.done() for one in self._batch):
            self._expect_end(loop)

    def _expect_end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits for the call that runs: should it not end, the process may be stuck."""
        if self._deadlines:
            return
        if self._call.is_async and self._running is not None:
            self._running.cancel()  # as a hard limit cancels an async input
        after, watch = loop.call_later, stuck.current()
        self._deadlines = [after(stuck.DEAF_AFTER, self._report_deaf, context=self._context)]
        if watch is not None:
            self._deadlines.append(
                after(watch.timeout, self._report_stuck, watch, context=self._context)
            )

    def _report_deaf(self) -> None:
        logger.warning(
            "a call of %s runs on though nobody waits for it: elements=%d waiting=%d",
            self._call.name,
            len(self._batch),
            len(self._waiting),
        )

    def _report_stuck(self, watch: stuck.Watch) -> None:
        logger.critical(
            "a call of %s is stuck: draining this node, to be replaced", self._call.name
        )
        # Those behind it have to end, or the node would wait for them.
        self._stuck = Raised.of(BatchError(f"a call of {self._call.name} before this is stuck"))
        waiting, self._waiting = list(self._waiting), OrderedDict()
        _settle(waiting, self._stuck)
        watch.drain()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while batch := self._next():
            waiters = list(batch)
            try:
                running = self._call.start(loop, list(batch.values()))
            except Exception as error:  # no thread to be had
                _settle(waiters, Raised.of(error))
                continue
            self._running, self._batch = running, waiters
            running.add_done_callback(partial(self._end, loop, waiters), context=self._context)
            return

    def _next(self) -> dict[Waiter, Any]:
        """Those that wait longest."""
        # One that is cancelled leaves when its caller has its turn.
        living = ((one, element) for one, element in self._waiting.items() if not one.done())
        batch = dict(islice(living, self._rule.max_batch_size))
        for waiter in batch:
            del self._waiting[waiter]
        return batch

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[Waiter],
        running: asyncio.Future[Any],
    ) -> None:
        self._batch, self._running, self._stuck = [], None, None
        while self._deadlines:
            self._deadlines.pop().cancel()
        # The next call first: a device should not idle while these go on.
        self._begin(loop)
        if running.cancelled():  # before it had begun
            _settle(batch, Raised.of(asyncio.CancelledError()))
        else:
            _settle(batch, running.result())


def _settle(batch: list[Waiter], outcome: list[Any] | Raised) -> None:
    outcomes = [outcome] * len(batch) if isinstance(outcome, Raised) else outcome
    for waiter, one in zip(batch, outcomes, strict=True):
        if not waiter.done():  # its caller may have been cancelled
            waiter.set_result(one)
