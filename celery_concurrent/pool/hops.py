"""Nothing that blocks runs on the event loop: hops to a few I/O threads and back.

Within an async input, Celery's tracer stores results, sends callbacks and publishes; each of
these is a blocking call. :func:`hop` makes it on an I/O thread while the input's greenlet
waits, as if it awaited it. Everywhere else it is a plain call.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from celery_concurrent.bridge import Unbroken, in_tracer, wait_for_future
from celery_concurrent.context import carried
from celery_concurrent.pool.threads import Threads

P = ParamSpec("P")
R = TypeVar("R")

Outcome = tuple[bool, Any]


class Hopper:
    """A fixed set of I/O threads, and the way back to the loop.

    Args:
        threads: runs the calls; its number bounds how many block at once.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._done: deque[tuple[Unbroken, Outcome]] = deque()
        self._wake_pending = False
        self.is_closed = False

    def hop(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function`` without blocking the event loop that runs the caller's input.

        A cancellation that arrives meanwhile waits for the call to end: a message is either
        sent or not when the input goes on.
        """
        if not in_tracer():
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        future = Unbroken(loop=loop)
        call = functools.partial(carried(function), *args, **kwargs)
        self._threads.submit(functools.partial(self._make, call, loop, future))
        result: R = wait_for_future(future)
        return result

    def close(self) -> None:
        """Let the threads end when they have nothing to do."""
        self.is_closed = True
        self._threads.close()

    def _make(
        self,
        call: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        future: Unbroken,
    ) -> None:
        try:
            outcome: Outcome = (True, call())
        except BaseException as error:
            outcome = (False, error)
        self.deliver(loop, future, outcome)

    def deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        future: Unbroken,
        outcome: Outcome,
    ) -> None:
        """Have the loop's thread set the future; called from any other."""
        self._done.append((future, outcome))
        if not self._wake_pending:  # one wake-up for all that is done by then
            self._wake_pending = True
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._done.clear()

    def _deliver(self) -> None:
        self._wake_pending = False
        while self._done:
            future, (succeeded, value) = self._done.popleft()
            if future.done():
                continue
            if succeeded:
                future.set_result(value)
            elif isinstance(value, StopIteration):  # a future refuses it
                future.set_exception(RuntimeError(f"raised {value!r}"))
            else:
                future.set_exception(value)


class HoppingBackend:
    """A result backend whose methods hop when an async input calls them.

    Args:
        resolve: gives the real backend of the calling thread.
        hopper: makes the calls.
    """

    #: Methods that touch no network: not worth a hop. And one that must not hop:
    #: ``AsyncResult.__del__`` calls it, so the garbage collector does, in the midst of anything.
    #: An input that waited there would keep the locks that it holds, and the loop needs them.
    PURE = frozenset(
        {
            "remove_pending_result",
            "as_uri",
            "decode",
            "encode",
            "exception_to_python",
            "get_key_for_task",
            "is_cached",
            "meta_from_decoded",
            "prepare_exception",
            "prepare_value",
            "process_cleanup",
        }
    )

    def __init__(self, resolve: Callable[[], Any], hopper: Hopper) -> None:
        vars(self).update(_resolve=resolve, _hopper=hopper)

    @property
    def real(self) -> Any:
        """The calling thread's real backend."""
        return self._resolve()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._resolve(), name)
        # Results outlive the node, and may be the last that the interpreter throws away.
        if self._hopper.is_closed or name in self.PURE or not in_tracer() or not callable(value):
            return value
        return functools.partial(self._hopper.hop, self._call, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._resolve(), name, value)

    def __repr__(self) -> str:
        return f"<HoppingBackend: {self._resolve()!r}>"

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._resolve(), name)(*args, **kwargs)
