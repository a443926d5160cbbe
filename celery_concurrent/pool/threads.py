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

from celery.utils.log import get_logger

logger = get_logger(__name__)

_numbers = itertools.count(1)


def start_daemon(run: Callable[[], None], name: str) -> None:
    """Start a thread that does not keep the process from ending."""
    threading.Thread(target=run, name=name, daemon=True).start()


class Bell:
    """Where one thread sleeps until it is given work, or nothing, which tells it to look around."""

    __slots__ = ("_lock", "_work")

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self, work: Callable[[], None] | None) -> None:
        """Wake the thread; once for each time that it sleeps."""
        self._work = work
        self._lock.release()

    def has_rung(self, timeout: float | None) -> bool:
        """Sleep; False when nobody has rung for ``timeout`` seconds, None means for ever."""
        return self._lock.acquire() if timeout is None else self._lock.acquire(timeout=timeout)

    def answer(self) -> Callable[[], None] | None:
        """What it was rung for, which is not kept here."""
        work, self._work = self._work, None
        return work


class Threads:
    """Runs callables on threads of its own, first on the one that fell idle last.

    An idle thread sleeps on a lock of its own and is handed its work. (With one condition for all
    of them, a thread that is woken waits for the others again, to look for work: that took a fifth
    more CPU per short input.)

    What always holds, under ``_lock``: where work waits, no thread is idle; who takes a bell out of
    ``_idle`` rings it, or is its own thread, which ends.

    Args:
        name: prefix of the threads' names.
        most: threads at the most; None leaves it to who submits.
        idle_timeout: seconds after which a thread without work ends; None for never.
        spawn: starts a thread that runs a function; must not wait for it.
    """

    def __init__(
        self,
        name: str,
        *,
        most: int | None = None,
        idle_timeout: float | None = 30.0,
        spawn: Callable[[Callable[[], None], str], None] = start_daemon,
    ) -> None:
        self._name = name
        self._spawn = spawn
        self._most = most
        self._idle_timeout = idle_timeout
        self._lock = threading.Lock()
        self._work: deque[Callable[[], None]] = deque()
        self._idle: list[Bell] = []
        self._closed = False
        self.count = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` on a free thread, or on a new one. It must not raise.

        Raises:
            RuntimeError: the system gives no thread, and there is none; it is not run.
        """
        failed = None
        with self._lock:
            bell = self._idle.pop() if self._idle else None
            if bell is None:
                self._work.append(work)
                if self._most is None or self.count < self._most:
                    failed = self._start()
        if bell is not None:
            bell.ring(work)
        if failed is not None:  # told here, for whoever logs may wait for something
            logger.warning("%s: %s; what is to run waits for one that is busy", self._name, failed)

    def close(self) -> None:
        """Let idle threads end; busy ones end after their work."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for bell in idle:
            bell.ring(None)

    def _start(self) -> Exception | None:
        self.count += 1
        try:
            self._spawn(self._run, f"{self._name}-{next(_numbers)}")
        except Exception as error:
            self.count -= 1
            if not self.count:
                self._work.pop()
                raise
            return error
        return None

    def _run(self) -> None:
        bell = Bell()
        while True:
            with self._lock:
                work = self._work.popleft() if self._work else None
                if work is None:
                    if self._closed:
                        self.count -= 1
                        return
                    self._idle.append(bell)
            if work is None:
                if not self._is_needed(bell):
                    return
                work = bell.answer()
            if work is not None:
                work()
            del work  # an idle thread must not keep the last input alive

    def _is_needed(self, bell: Bell) -> bool:
        if bell.has_rung(self._idle_timeout):
            return True
        with self._lock:
            if bell in self._idle:
                self._idle.remove(bell)
                self.count -= 1
                return False
        return bell.has_rung(None)  # for somebody is about to ring it


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
