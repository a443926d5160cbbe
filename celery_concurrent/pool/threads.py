"""Threads that run sync inputs: started as needed, kept for the next input, never joined.

They are daemons: an input that never ends must not keep a node from leaving. Their number is
bounded by the slots, for an input only comes here with one.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import deque
from collections.abc import Callable

_numbers = itertools.count(1)


def start_daemon(run: Callable[[], None], name: str) -> None:
    """Start a thread that does not keep the process from ending."""
    threading.Thread(target=run, name=name, daemon=True).start()


class Threads:
    """Runs callables on threads of its own.

    Args:
        name: prefix of the threads' names.
        most: threads at the most; None leaves it to who submits.
        idle_timeout: seconds after which a thread without work ends.
        spawn: starts a thread that runs a function; must not wait for it.
    """

    def __init__(
        self,
        name: str,
        *,
        most: int | None = None,
        idle_timeout: float = 30.0,
        spawn: Callable[[Callable[[], None], str], None] = start_daemon,
    ) -> None:
        self._name = name
        self._spawn = spawn
        self._most = most
        self._idle_timeout = idle_timeout
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._idle = 0
        self._closed = False
        self.count = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` on a free thread, or on a new one. It must not raise."""
        with self._changed:
            self._work.append(work)
            if self._idle >= len(self._work):
                self._changed.notify()
            elif self._most is None or self.count < self._most:
                self.count += 1
                self._spawn(self._run, f"{self._name}-{next(_numbers)}")

    def close(self) -> None:
        """Let idle threads end; busy ones end after their work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._work:
                    if self._closed or not self._wait_for_work():
                        self.count -= 1
                        return
                work = self._work.popleft()
            work()
            del work  # an idle thread must not keep the last input alive

    def _wait_for_work(self) -> bool:
        self._idle += 1
        try:
            return self._changed.wait(self._idle_timeout) or bool(self._work)
        finally:
            self._idle -= 1


class ThreadInterrupter:
    """Raises exceptions in the thread that made it.

    CPython delivers them between two bytecodes: a call into C that blocks, as
    ``time.sleep(60)``, is not cut short.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._has_interrupted = False

    def interrupt(self, error: type[BaseException]) -> None:
        """Have ``error`` raised in the thread."""
        self._has_interrupted = True
        _set_async_exc(ctypes.c_ulong(self._thread), ctypes.py_object(error))

    def clear(self) -> None:
        """Take back an exception that was not raised yet.

        Nothing is taken back for nothing: CPython 3.11 then looks for exceptions at every call and
        loop of every thread from there on, and below a tracer or a profiler it does nothing else.
        """
        if self._has_interrupted:
            _set_async_exc(ctypes.c_ulong(self._thread), None)


_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
