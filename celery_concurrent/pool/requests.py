"""What the engine asks of Celery's requests, and of its worker."""

from __future__ import annotations

from typing import Any

from celery.utils import log
from celery.worker import state as worker_state
from celery.worker.request import Request

from celery_concurrent.pool.inputs import Input


def may_follow(input: Input, following: Input) -> bool:
    """Whether the second may start where the first has ended, as far as any thread may look.

    Not what Celery's request may refuse to run, which settles it (Request.revoked of 5.6 and 5.7),
    nor what is to be acknowledged before it starts: these start on the settling thread.
    """
    request = following.request
    return (
        following.is_async is input.is_async
        and request.task.acks_late
        and type(request).revoked is Request.revoked
        and request.id not in worker_state.revoked
        and not request.expires
        and not request.stamped_headers
    )


def is_stopping() -> bool:
    """Whether the worker was asked to stop, and may not have come to it yet."""
    stop, end = worker_state.should_stop, worker_state.should_terminate
    return (stop is not None and stop is not False) or (end is not None and end is not False)


def is_in_signal_handler() -> bool:
    """Whether the worker's main thread is in one of Celery's (celery.utils.log, 5.6 and 5.7).

    In that of a soft stop it waits for what runs.
    """
    return bool(log._in_sighandler)


def forget(request: Any) -> None:
    """Celery counts it no more; another delivery of the input may be in its place by now."""
    if worker_state.requests.get(request.id) is request:
        worker_state.task_ready(request)
