"""Elements on their way through one call for many of them.

What always holds, for each event loop:

1. At most one call runs. Its end starts the next one.
2. While none runs and something waits, a timer is set, which starts one.
3. Whoever waits gets an outcome, whatever becomes of the call, or is cancelled.
"""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, finalize

from celery_concurrent.errors import BatchError, ConfigurationError


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
        function: takes a list, returns an iterable with a result for each of its elements.
        rule: see there.
        name: the function's, for errors and for its thread.
    """

    def __init__(self, function: Callable[..., Any], rule: Rule, *, name: str) -> None:
        self._call = Call(function, name)
        self._rule = rule
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = WeakKeyDictionary()

    async def result_of(self, element: Any) -> Any:
        """The function's result for this element; to be awaited on an event loop.

        Raises:
            Exception: what the function raised or returned for it.
            BatchError: the function returned something else than a result per element.
        """
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = Line(self._call, self._rule)
        outcome = await line.join(loop, element)
        if isinstance(outcome, Raised):
            # The same error for all: each one's traceback begins where the function raised it.
            raise outcome.error.with_traceback(outcome.traceback)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@dataclass(frozen=True, slots=True)
class Raised:
    """How a call ended that raised something."""

    error: BaseException
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        return cls(error, error.__traceback__)


class Line:
    """What waits on one event loop, and the call that runs; touched on that loop's thread only.

    It must not keep the loop, by which it is found and with which it is to go.
    """

    def __init__(self, call: Call, rule: Rule) -> None:
        self._call = call
        self._rule = rule
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._is_running = False
        self._timer: asyncio.Handle | None = None

    def join(self, loop: asyncio.AbstractEventLoop, element: Any) -> asyncio.Future[Any]:
        """Stand in line; the future gets the element's outcome."""
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((element, future))
        if not self._is_running:
            if len(self._waiting) >= self._rule.max_batch_size:
                self._begin(loop)
            elif self._timer is None:
                # With 0, too, it waits for what the loop has ready now.
                self._timer = loop.call_later(self._rule.max_wait, self._begin, loop)
        return future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._next()
        if not batch:
            return
        self._is_running = True
        try:
            running = self._call.start(loop, [element for element, _ in batch])
        except Exception as error:  # no thread to be had
            self._is_running = False
            _settle(batch, Raised.of(error))
            return
        running.add_done_callback(lambda running: self._end(loop, batch, running))

    def _next(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """Those that wait longest and have not been cancelled since."""
        batch: list[tuple[Any, asyncio.Future[Any]]] = []
        while self._waiting and len(batch) < self._rule.max_batch_size:
            element, future = self._waiting.popleft()
            if not future.done():
                batch.append((element, future))
        return batch

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Any, asyncio.Future[Any]]],
        running: asyncio.Future[Any],
    ) -> None:
        self._is_running = False
        # The next call first: a device should not idle while these go on.
        self._begin(loop)
        if running.cancelled():  # with its loop
            for _, future in batch:
                future.cancel()
        else:
            _settle(batch, running.result())


def _settle(batch: list[tuple[Any, asyncio.Future[Any]]], outcome: list[Any] | Raised) -> None:
    outcomes = [outcome] * len(batch) if isinstance(outcome, Raised) else outcome
    for (_, future), one in zip(batch, outcomes, strict=True):
        if not future.done():  # its caller may have been cancelled
            future.set_result(one)


class Call:
    """Runs the function: a ``def`` on a thread that is its own, an ``async def`` as a task.

    Both give the list of results, or :class:`Raised` for whatever was raised: a future takes no
    StopIteration, and a SystemExit would end its thread, or the loop.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
        self._thread: CallThread | None = None

    def start(
        self, loop: asyncio.AbstractEventLoop, elements: list[Any]
    ) -> asyncio.Future[list[Any] | Raised]:
        """Begin a call, which belongs to no input: it has none of their contexts."""
        if self._is_async:
            return contextvars.Context().run(loop.create_task, self._run_async(elements))
        if self._thread is None or self._thread.pid != os.getpid():  # a fork has no threads
            self._thread = CallThread(f"batched-{self._name}")
        return self._thread.run(loop, lambda: self._run(elements))

    def _run(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            return self._checked(self._function(elements), len(elements))
        except BaseException as error:
            return Raised.of(error)

    async def _run_async(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            return self._checked(await self._function(elements), len(elements))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return Raised.of(error)

    def _checked(self, returned: Any, count: int) -> list[Any]:
        remedy = "return a list with one result per element, in their order"
        if not isinstance(returned, Iterable) or isinstance(
            returned, str | bytes | Mapping | AbstractSet
        ):
            raise BatchError(
                f"{self._name} was given {count} elements and returned {returned!r:.100}: {remedy}"
            )
        results = list(returned)
        if len(results) != count:
            raise BatchError(
                f"{self._name} was given {count} elements and returned {len(results)} results: "
                f"{remedy}"
            )
        return results


Order = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class CallThread:
    """A thread for calls that may hang: unlike an executor's, it keeps no process from ending.

    It ends with this object.
    """

    def __init__(self, name: str) -> None:
        self.pid = os.getpid()
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        finalize(self, self._orders.put, None)
        # Not a Thread: its start() waits, and on eventlet's hub nothing in a task may wait.
        _thread.start_new_thread(_serve, (name, self._orders))

    def run(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run this, which must not raise; the future gets what it returns."""
        future: asyncio.Future[Any] = loop.create_future()
        self._orders.put((loop, future, call))
        return future


def _serve(name: str, orders: SimpleQueue[Order | None]) -> None:
    threading.current_thread().name = name
    while (order := orders.get()) is not None:
        loop, future, call = order
        outcome = call()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_give, future, outcome)
        # Nothing of it may live until the next one comes.
        del order, loop, future, call, outcome


def _give(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)
