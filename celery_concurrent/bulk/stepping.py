"""Where synchronous code waits and publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent

from celery_concurrent.bridge import in_tracer, wait_for
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.offloop import is_of_eventlet, off_the_loop

P = ParamSpec("P")
R = TypeVar("R")

Step = Callable[[Coroutine[Any, Any, Any]], Any]


@contextmanager
def stepping() -> Iterator[tuple[asyncio.AbstractEventLoop, Step]]:
    """A loop for synchronous code, and how to run a coroutine on it to its end.

    Below an async input of a node, and in a green thread of eventlet's, that is the loop that
    runs already, and goes on meanwhile. Between
    two steps the caller is outside of any loop, so what it calls may use one of its own.

    Raises:
        ConfigurationError: the caller would block a loop that is running.
    """
    if in_tracer():
        yield asyncio.get_running_loop(), wait_for
        return
    running = asyncio._get_running_loop()
    if running is not None and _is_green_thread_beside(running):
        from eventlet.asyncio import spawn_for_awaitable

        yield running, lambda coroutine: spawn_for_awaitable(coroutine).wait()
        return
    if running is not None:
        raise ConfigurationError(
            "`for` over a task_map would block the event loop that is running: write `async for`"
        )
    loop = asyncio.new_event_loop()
    try:
        yield loop, loop.run_until_complete
    finally:
        _close(loop)


def _is_green_thread_beside(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller is one of eventlet's green threads, and ``loop`` what switches them.

    The loop runs in the same thread of the system, and not below the caller.
    """
    if not is_of_eventlet(loop):
        return False
    from eventlet.hubs import get_hub

    return get_hub().greenlet is not getcurrent()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """As asyncio.run() does at its end: no task, no thread, no connection is left behind."""
    try:
        loop.run_until_complete(_end_all(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def hopping(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what blocks, from synchronous code: below an async input of a node off its loop."""
    if in_tracer():
        result: R = wait_for(off_the_loop(function, *args, **kwargs))
        return result
    return function(*args, **kwargs)
