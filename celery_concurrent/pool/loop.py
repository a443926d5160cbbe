"""The event loop thread: each async input is one asyncio task there."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger

from celery_concurrent.bridge import Tracing
from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.runners import Following, Run

logger = get_logger(__name__)

#: Seconds without an answer after which the loop counts as stuck, and between two questions: so
#: much longer may one last that is not noticed.
STUCK_AFTER, ASKED_EVERY = 1.0, 0.1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop where it is installed, asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class AsyncInputs:
    """Runs async inputs on a loop; every method may be called from any thread.

    Args:
        loop: where they run.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._starting: deque[tuple[Input, contextvars.Context, Run]] = deque()
        self._wake_pending = False
        self._tasks: set[asyncio.Task[None] | None] = set()

    def start(self, input: Input, context: contextvars.Context, run: Run) -> None:
        """Call ``run`` in a greenlet of the input's own asyncio task."""
        self._starting.append((input, context, run))
        if not self._wake_pending:
            self._wake_pending = True
            self.loop.call_soon_threadsafe(self._start_all)

    def run(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        """Run a coroutine of ours on the loop; ``done`` gets its future when it has ended."""

        def start() -> None:
            task = self.loop.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(done)

        self.loop.call_soon_threadsafe(start)

    def _start_all(self) -> None:
        self._wake_pending = False
        while self._starting:
            input, context, run = self._starting.popleft()
            context.run(self._start, input, run)

    def _start(self, input: Input, run: Run) -> None:
        tracing = InputTracing(self, input, run)
        task = tracing.task = self.loop.create_task(tracing, name=input.id)
        input.interrupter = tracing
        self._tasks.add(task)  # the loop itself holds its tasks by weak references only

    def ended(self, task: asyncio.Task[None] | None, following: Following | None, run: Run) -> None:
        """On the loop: the work of an input, ``run``, has returned this."""
        self._tasks.discard(task)
        if following is not None:
            following.context.run(self._start, following.input, run)


class InputTracing(Tracing):
    """One async input, and the way into it: raises exceptions in it, at its next await.

    Everything is decided on the loop's thread, where the input leaves its function too: what
    arrives after that finds ``left`` set and does nothing.

    Args:
        inputs: those of its loop.
        input: whose.
        run: the tracer, to be called with the input; must not raise.
    """

    __slots__ = ("_inputs", "_pending", "input", "task")

    def __init__(self, inputs: AsyncInputs, input: Input, run: Run) -> None:
        super().__init__(run, input)
        self._inputs = inputs
        self.input = input
        self._pending: BaseException | None = None
        self.task: asyncio.Task[None] | None = None

    def interrupt(self, error: type[BaseException]) -> None:
        """Have it raised; an asyncio task is interrupted by cancelling it."""
        self._inputs.loop.call_soon_threadsafe(self._cancel, error)

    def clear(self) -> None:
        """Forget an exception that has not found its await."""
        self._pending = None

    def translate(self, error: BaseException) -> BaseException:
        """What to raise in the input in the place of ``error``."""
        if self._pending is None or not isinstance(error, asyncio.CancelledError):
            return error
        pending, self._pending = self._pending, None
        if sys.version_info >= (3, 11) and self.task is not None:
            self.task.uncancel()
        return pending

    def ended(self, value: Following | None) -> None:
        """Start what follows, and let go of the task, which holds this.

        What follows is not the task's result, which lives as long as somebody keeps the task.
        """
        self._inputs.ended(self.task, value, self._call)
        self.task = None

    def _cancel(self, error: type[BaseException]) -> None:
        if self.input.left or self.task is None:
            return
        # The input sees a soft limit as itself, everything that ends it as a cancellation.
        if issubclass(error, SoftTimeLimitExceeded):
            self._pending = error()
        self.task.cancel()


class LoopThread:
    """A thread that runs an event loop, and a watch that tells when it is stuck."""

    def __init__(self) -> None:
        self.loop = new_event_loop()
        self.inputs = AsyncInputs(self.loop)
        self._thread = threading.Thread(target=self._run, name="concurrent-loop", daemon=True)
        self._closing = threading.Event()

    def start(self) -> None:
        """Start the loop and its watch."""
        self._thread.start()
        threading.Thread(target=self._watch, name="concurrent-loop-watch", daemon=True).start()

    def close(self, timeout: float) -> None:
        """Stop the loop and wait up to ``timeout`` seconds; a stuck one is left behind."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        if self._closing.is_set():
            self._cancel_leftovers()
            self.loop.close()

    def _cancel_leftovers(self) -> None:
        leftovers = asyncio.all_tasks(self.loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            self.loop.run_until_complete(asyncio.wait(leftovers, timeout=1.0))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())

    def _watch(self) -> None:
        answered = threading.Event()
        while not self._closing.wait(ASKED_EVERY):
            answered.clear()
            try:
                self.loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # closed meanwhile
                return
            if answered.wait(STUCK_AFTER):
                continue
            self._report()
            answered.wait()  # once per occurrence

    def _report(self) -> None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
        task = asyncio.current_task(self.loop)
        logger.error(
            "the event loop is stuck for over %.1f s: %s blocks it and every other async input "
            "of this node; call what blocks by asyncio.to_thread\n%s",
            STUCK_AFTER,
            "an asyncio callback" if task is None else _describe(task),
            stack,
        )


def _describe(task: asyncio.Task[Any]) -> str:
    """Name the input, or another task and the input that has started it."""
    coroutine, name = task.get_coro(), task.get_name()
    if isinstance(coroutine, InputTracing):
        return f"input {coroutine.input}"
    context = getattr(task, "get_context", None)  # from Python 3.12
    input = None if context is None else context().get(CURRENT_INPUT)
    return name if input is None else f"{name} of input {input.id}"
