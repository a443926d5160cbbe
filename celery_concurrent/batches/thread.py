"""A thread for one call at a time, of which any may hang."""

from __future__ import annotations

import _thread
import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from weakref import finalize

Order = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class CallThread:
    """Makes calls in the order in which they come; ends with this object.

    Unlike an executor's it keeps no process from ending, and so a call that hangs does not.

    Args:
        name: the thread's, for people.
    """

    def __init__(self, name: str) -> None:
        self._pid = os.getpid()
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        # Not at exit: what runs there may want a call.
        finalize(self, self._orders.put, None).atexit = False
        # Not a Thread: its start() waits, and on eventlet's hub nothing in a task may wait.
        _thread.start_new_thread(_serve, (name, self._orders))

    @property
    def is_here(self) -> bool:
        """Whether it is a thread of this process: a fork has none."""
        return self._pid == os.getpid()

    def run(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Make a call, which must not raise; the future gets what it returns."""
        future: asyncio.Future[Any] = loop.create_future()
        self._orders.put((loop, future, call))
        return future


class ThreadMaker:
    """Gives one thread, made when it is first asked for; from any thread.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._made: CallThread | None = None

    def __call__(self) -> CallThread:
        with self._lock:
            if self._made is None or not self._made.is_here:
                self._made = CallThread(self._name)
            return self._made


def _serve(name: str, orders: SimpleQueue[Order | None]) -> None:
    threading.current_thread().name = name
    # As threading does: debuggers and coverage ask it for this.
    if threading.gettrace() is not None:
        sys.settrace(threading.gettrace())
    if threading.getprofile() is not None:
        sys.setprofile(threading.getprofile())
    while (order := orders.get()) is not None:
        _make(*order)
        del order  # nothing of it may live until the next one comes


def _make(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], call: Callable[[], Any]
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_give, future, call())
    # What was raised has this frame, and would be kept by it with what is returned.
    del loop, future, call


def _give(future: asyncio.Future[Any], returned: Any) -> None:
    if not future.done():
        future.set_result(returned)
