"""Calling what blocks from async code, while its event loop runs on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from celery_concurrent.context import carried

P = ParamSpec("P")
R = TypeVar("R")


async def off_the_loop(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what blocks on a thread, to its end; on eventlet's loop on a green thread.

    A cancellation waits for that end: it is known then what was published.
    """
    run = carried(function)
    if is_of_eventlet(asyncio.get_running_loop()):
        call = _on_green_thread(lambda: run(*args, **kwargs))
    else:
        call = asyncio.ensure_future(asyncio.to_thread(run, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise


def is_of_eventlet(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this loop is what switches eventlet's green threads.

    What such a process shares between them, as a pool of connections, is nothing for real threads.
    """
    hubs = sys.modules.get("eventlet.hubs")
    return hubs is not None and getattr(hubs.get_hub(), "loop", None) is loop


def _on_green_thread(function: Callable[[], R]) -> asyncio.Future[R]:
    import eventlet

    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def work() -> None:
        try:
            value = function()
        except Exception as error:
            _settle(future.set_exception, error)
        else:
            _settle(future.set_result, value)

    def _settle(settle: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            settle(outcome)

    eventlet.spawn_n(work)
    return future
