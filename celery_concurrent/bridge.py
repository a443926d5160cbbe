"""From Celery's synchronous tracer to a coroutine and back, one greenlet per input.

Celery's tracer calls a task and expects its result; an ``async def`` gives a coroutine. The
tracer stays as it is (retries, signals and ``self.request`` are Celery's own): in a node it
runs in a greenlet on the event loop's thread. Where it calls the task, :func:`driven` steps
the coroutine *in that greenlet*, and hands each future that the coroutine awaits to the parent
greenlet, which is an asyncio task (:class:`Tracing`) and awaits it.

What always holds:

- Celery keys its stacks of tasks and requests by greenlet (``celery.utils.threads``), so each
  input sees only its own, however its coroutine interleaves with others.
- The greenlet shares the context of its asyncio task: ContextVars, ``asyncio.current_task()``
  and ``asyncio.timeout()`` work in the coroutine as anywhere.
- Only :class:`Tracing` switches into the greenlet, and only the greenlet switches back to it.

Where no node runs the tracer (``apply()``, ``task_always_eager``, other pools), the coroutine is
run to its end on the spot.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from types import MethodType
from typing import Any

from celery._state import _task_stack
from greenlet import getcurrent, greenlet

from celery_concurrent.context import carried
from celery_concurrent.marks import Mark, mark_of

#: Celery's tasks behind ``map``, ``starmap`` and ``chunks`` (app/builtins.py, 5.6 and 5.7).
CALLING_TASKS = frozenset({"celery.map", "celery.starmap", "celery.chunks"})

_ENTERED = "_concurrent_entered"
_local = threading.local()


class TracerGreenlet(greenlet):
    """A greenlet that may wait for futures: only :class:`Tracing` makes one."""

    __slots__ = ()


class Tracing(Coroutine[Any, Any, Any]):
    """A coroutine that runs ``call(*args)`` in a greenlet of its own; an asyncio task steps it.

    A class of its own in the place of an ``async def``: while an input waits, a coroutine and a
    generator less are kept in memory.

    Args:
        call: the tracer.
        args: what it is called with.
    """

    __slots__ = ("_args", "_call", "_tracer")

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self._call = call
        self._args = args
        self._tracer: TracerGreenlet | None = None

    def translate(self, error: BaseException) -> BaseException:
        """Asked for each exception thrown in at an await: what to raise there in its place."""
        return error

    def ended(self, value: Any) -> Any:
        """Called when the tracer has returned this; gives the coroutine's result."""
        return value

    def send(self, value: Any) -> Any:
        """Run the tracer until its coroutine awaits something, which is returned, or to its end."""
        if self._tracer is not None:
            return self._awaited(self._tracer.switch(value))
        tracer = self._tracer = TracerGreenlet(self._call)
        tracer.gr_context = getcurrent().gr_context or copy_context()
        args, self._args = self._args, ()
        return self._awaited(tracer.switch(*args))

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """The same, with an exception raised where the coroutine awaits."""
        if isinstance(error, type):
            error = error() if value is None else value
        if traceback is not None:
            error = error.with_traceback(traceback)
        if self._tracer is None:  # as with any coroutine that has not begun
            self._tracer = _ended()
            raise error
        return self._awaited(self._tracer.throw(self.translate(error)))

    def close(self) -> None:
        """End it, as Python ends a coroutine that nobody waits for any more."""
        if self._tracer is None or self._tracer.dead:
            return
        try:
            self.throw(GeneratorExit())
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError("the input ignored GeneratorExit")

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        step: Callable[[Any], Any] = self.send
        while True:
            try:
                awaited = step(value)
            except StopIteration as stop:
                return stop.value
            try:
                value, step = (yield awaited), self.send
            except BaseException as error:
                value, step = error, self.throw

    def _awaited(self, value: Any) -> Any:
        assert self._tracer is not None
        if self._tracer.dead:
            raise StopIteration(self.ended(value))
        return value


def _ended() -> TracerGreenlet:
    tracer = TracerGreenlet(_nothing)
    tracer.switch()
    return tracer


def _nothing() -> None:
    """What a tracer runs that never began."""


def in_tracer() -> bool:
    """Whether the caller may wait for futures with :func:`wait_for`."""
    return isinstance(getcurrent(), TracerGreenlet)


def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Step a coroutine in this greenlet to its end, handing what it awaits to the parent."""
    parent = getcurrent().parent
    assert parent is not None
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
            try:
                value, error = parent.switch(awaited), None
            except BaseException as thrown:
                error = thrown
    except StopIteration as stop:
        return stop.value
    finally:
        error = None  # or its traceback and this frame would keep each other


class Unbroken(asyncio.Future[Any]):
    """A future of a call that goes on when the input that waits for it is cancelled.

    asyncio cancels a task by cancelling the future that it awaits; one that refuses has the
    cancellation raised when it is done. So a message is either sent or not when its input goes
    on, and what ends the input waits for that.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002  # asyncio's signature
        """Refuse."""
        return False


def wait_for_future(future: Unbroken) -> Any:
    """Hand a future to the parent greenlet until it is done, as a coroutine's ``await`` would."""
    if not future.done():
        parent = getcurrent().parent
        assert parent is not None
        future._asyncio_future_blocking = True  # asyncio's protocol for what a task awaits
        parent.switch(future)
    return future.result()


def driven(function: Callable[..., Any], mark: Mark) -> Callable[..., Any]:
    """The function that Celery gets in the place of an ``async def``.

    Called by a tracer for a request of this very task it returns the awaited result; called
    by anyone else (``task(...)``, a task's own code) it returns the coroutine, as before.
    """
    known: dict[Mark, Callable[..., Any]] = getattr(function, "__driven__", {})
    if mark in known:  # Celery recognises a registered function by its identity
        return known[mark]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        coroutine = function(*args, **kwargs)
        return run_coroutine(coroutine) if called_by_tracer(mark) else coroutine

    # From this Celery checks a call's arguments where it is published (5.6 and 5.7).
    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # inspect's own
    run.__drives__ = (run, function, mark)  # type: ignore[attr-defined]  # see driven_by
    with suppress(AttributeError):  # a bound method of a class-based task, registered once
        function.__driven__ = {**known, mark: run}  # type: ignore[attr-defined]  # user function
    return run


def driven_by(run: Any) -> tuple[Callable[..., Any], Mark] | None:
    """The ``async def`` that this very function or method runs, and its mark; None for others.

    A wrapper that has the attributes of what it wraps (``autoretry_for``) is another function.
    """
    drives: tuple[Any, Callable[..., Any], Mark] | None = getattr(run, "__drives__", None)
    if drives is None or drives[0] is not getattr(run, "__func__", run):
        return None
    _, function, mark = drives
    bound = getattr(run, "__self__", None)
    return (function if bound is None else MethodType(function, bound)), mark


def called_by_tracer(mark: Mark) -> bool:
    """Whether a tracer calls the task of this mark for a request, whose first call it is."""
    task = _task_stack.top
    if task is None or mark_of(task) is not mark:
        return False
    request = task.request_stack.top
    if request is None or hasattr(request, _ENTERED):
        return False
    if request.called_directly and not _called_by_celery():
        return False
    setattr(request, _ENTERED, True)
    return True


def _called_by_celery() -> bool:
    """Whether one of Celery's own tasks calls this one directly, and wants its result."""
    callers = _task_stack.stack[:-1]
    return bool(callers) and callers[-1].name in CALLING_TASKS


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end from synchronous code, wherever that runs."""
    if in_tracer():
        return wait_for(coroutine)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _thread_loop().run_until_complete(coroutine)
    return _run_in_helper(coroutine)


def _run_in_helper(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a thread of its own: this one's event loop is running and can't nest."""
    outcome: list[Any] = []
    run = carried(asyncio.run)

    def body() -> None:
        try:
            outcome.extend((True, run(coroutine)))
        except BaseException as error:
            outcome.extend((False, error))

    helper = threading.Thread(target=body, name="concurrent-eager")
    helper.start()
    helper.join()
    succeeded, value = outcome
    if succeeded:
        return value
    raise value


class _ThreadLoop:
    """An event loop that is closed when the thread that it belongs to has ended."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def __del__(self) -> None:
        if not self.loop.is_running():
            self.loop.close()


def _thread_loop() -> asyncio.AbstractEventLoop:
    """This thread's loop for inputs outside of a node: kept, so that a service's sessions are."""
    kept: _ThreadLoop | None = getattr(_local, "kept", None)
    if kept is None or kept.loop.is_closed():
        kept = _local.kept = _ThreadLoop()
    return kept.loop
