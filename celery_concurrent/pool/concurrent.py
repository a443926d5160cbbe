"""The pool of ``-P concurrent``: threads for sync inputs, one event loop for async ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from celery_concurrent.marks import mark_of
from celery_concurrent.pool.core import NodePool
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.loop import AsyncInputs, LoopThread
from celery_concurrent.pool.runners import Following, Run
from celery_concurrent.pool.threads import ThreadInterrupter


class TaskPool(NodePool):
    """Runs sync inputs on threads and async inputs on one event loop."""

    def start_runners(self) -> None:
        self.threads = self.make_threads("concurrent-input")
        self._loop: LoopThread | None = None
        self._loop_lock = threading.Lock()
        marks = map(mark_of, self.app.tasks.values())
        if any(mark is not None and mark.is_async for mark in marks):
            self._async_inputs()  # or the first one would wait for the start

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        self.threads.submit(partial(_run_in_turn, [Following(input, context)], run))

    def run_async(self, input: Input, context: Context, run: Run) -> None:
        self._async_inputs().start(input, context, run)

    def run_hook_sync(self, work: Callable[[], None]) -> None:
        self.threads.submit(work)

    def run_hook_async(self, coroutine: Any, done: Callable[[Any], None]) -> None:
        self._async_inputs().run(coroutine, done)

    def close_runners(self) -> None:
        if hasattr(self, "threads"):
            if self._loop is not None:
                self._loop.close(timeout=1.0)
            self.threads.close()

    def _async_inputs(self) -> AsyncInputs:
        """The loop's: a node without async inputs needs neither its memory nor its threads."""
        with self._loop_lock:
            if self._loop is None:
                self._loop = LoopThread()
                self._loop.start()
            return self._loop.inputs

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        info["threads"] = self.threads.count if hasattr(self, "threads") else 0
        return info


def _run_in_turn(line: list[Following], run: Run) -> None:
    """Run the one in line, and each that follows."""
    while line:
        _run_first(line, run)


def _run_first(line: list[Following], run: Run) -> None:
    # In a frame of its own, which an error of this input keeps, and with it no other input.
    input, context = line.pop()
    input.interrupter = ThreadInterrupter()
    line.extend(filter(None, (context.run(run, input),)))
