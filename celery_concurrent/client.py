"""Calling tasks from async code: publish and wait without blocking the event loop.

Usable inside async tasks and in any asyncio program. With results in Redis waiting is a
subscription, one connection for each event loop and backend; other backends are polled on a
thread.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from celery import states
from celery.canvas import Signature
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, EagerResult, ResultBase, ResultSet

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.offloop import off_the_loop

#: Seconds between two looks at a backend that cannot be subscribed to.
POLL_FIRST, POLL_MOST = 0.02, 1.0


async def acall(task: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a task and await its result; the event loop runs on meanwhile.

    Args:
        task: a task, or a signature (``task.s().set(queue=...)``) to give it options.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        What the task returns.

    Raises:
        Exception: what the task raises.
    """
    if isinstance(task, Signature):
        signature = task.clone(args, kwargs)
    elif hasattr(task, "s"):
        signature = task.s(*args, **kwargs)
    else:
        raise ConfigurationError(
            f"acall() got {task!r}: give it a task or a signature, as in await acall(add, 1, 2)"
        )
    result = await off_the_loop(signature.apply_async)
    return await aresult(result)


async def aresult(result: ResultBase, *, timeout: float | None = None) -> Any:
    """Await the result of a task that was called.

    Args:
        result: what ``delay`` or ``apply_async`` returned; a group's gives a list.
        timeout: seconds to wait at the most, None for as long as it takes.

    Raises:
        celery.exceptions.TimeoutError: it took longer.
        Exception: what the task raises.
    """
    waiting = asyncio.ensure_future(value_of(result))
    # Not wait_for(): the task's own TimeoutError must come through as what it is.
    try:
        done, _ = await asyncio.wait([waiting], timeout=timeout)
        if not done:
            raise CeleryTimeoutError(f"no result of {result} within {timeout} s")
        return waiting.result()
    finally:
        waiting.cancel()


async def value_of(result: Any) -> Any:
    """As :func:`aresult`, for as long as it takes."""
    if isinstance(result, EagerResult):
        return result.get(disable_sync_subtasks=False)
    if isinstance(result, ResultSet):
        return list(await asyncio.gather(*(value_of(child) for child in result.results)))
    if not isinstance(result, AsyncResult):
        raise ConfigurationError(
            f"aresult() got {result!r}, a {type(result).__name__}: give it what delay() or "
            "apply_async() returned"
        )
    outcome = await _outcome(result)
    if outcome["status"] in states.PROPAGATE_STATES:
        raise outcome["result"]
    return outcome["result"]


async def _outcome(result: AsyncResult) -> dict[str, Any]:
    # Every celery command imports this module, and few of them wait for results.
    from celery_concurrent.subscription import subscriber_for

    subscriber = subscriber_for(result.backend)
    if subscriber is not None:
        return await subscriber.outcome(result.id)
    return await _polled_outcome(result)


async def _polled_outcome(result: AsyncResult) -> dict[str, Any]:
    pause = POLL_FIRST
    while True:
        meta = await off_the_loop(result.backend.get_task_meta, result.id, cache=False)
        if meta["status"] in states.READY_STATES:
            return cast(dict[str, Any], meta)
        await asyncio.sleep(pause)
        pause = min(pause * 2, POLL_MOST)
