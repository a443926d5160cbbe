"""The tasks of the contract, each as ``def`` and as ``async def``; Celery's nodes import it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, chain, signals
from celery.exceptions import Ignore, Reject

from celery_concurrent import concurrent, current_input_id

app = Celery(__name__)
app.conf.accept_content = ["json", "pickle"]
app.conf.result_accept_content = ["json", "pickle"]
NOTES = Path(__file__ + ".notes")


def note(what: Any) -> None:
    with NOTES.open("a") as notes:
        notes.write(json.dumps([current_input_id(), what]) + "\n")


@signals.task_prerun.connect
@signals.task_postrun.connect
@signals.task_success.connect
@signals.task_failure.connect
@signals.task_retry.connect
def on_signal(signal: Any, sender: Any, **given: Any) -> None:
    note([signal.name, sender.name.rpartition(".")[2]])


class FlakyError(Exception):
    """Goes away after a retry."""


class Tracing(Task):
    """Notes its handlers."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note("on_success")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_failure")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_retry")

    def after_return(self, status: str, *_: Any) -> None:
        note(f"after_return {status}")


def both(**options: Any) -> Any:
    """Register a function, called with the task itself, as a sync and as an async task."""

    def register(function: Any) -> dict[str, Any]:
        def sync(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, *args, **kwargs)

        async def coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.001)
            result = function(self, *args, **kwargs)
            await asyncio.sleep(0.001)
            return result

        name = function.__name__
        make = {"bind": True, **options}
        return {
            "sync": app.task(name=f"sync.{name}", **make)(concurrent(max_inputs=10)(sync)),
            "async": app.task(name=f"async.{name}", **make)(concurrent(max_inputs=10)(coroutine)),
        }

    return register


@both()
def add(self: Any, x: int, y: int) -> int:
    return x + y


@both()
def total(self: Any, numbers: list[int]) -> int:
    return sum(numbers)


@both()
def fail(self: Any, *args: Any) -> None:
    raise KeyError("failed on purpose")


@both()
def failed(self: Any, *args: Any) -> str:
    """An errback: what Celery hands over is the request's, and the error or its id."""
    note("failed")
    return "told"


@both(base=Tracing, max_retries=5)
def retried(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=0.01)
    return int(self.request.retries)


@both(max_retries=2)
def exhausted(self: Any) -> None:
    try:
        raise FlakyError("for ever")
    except FlakyError as error:
        raise self.retry(exc=error, countdown=0) from None


@both(autoretry_for=(FlakyError,), retry_backoff=False, default_retry_delay=0, max_retries=5)
def autoretried(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise FlakyError("once more")
    return int(self.request.retries)


@both()
def replaced(self: Any, kind: str, x: int) -> Any:
    return self.replace(chain(add[kind].s(x, 1), add[kind].s(10)))


@both(ignore_result=True)
def forgotten(self: Any) -> int:
    note("ran")
    return 1


def until(flag: str) -> None:
    while not Path(flag).exists():
        time.sleep(0.01)


async def until_async(flag: str) -> None:
    while not Path(flag).exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.01)


@app.task(bind=True, name="sync.waits", track_started=True)
@concurrent(max_inputs=10)
def waits_sync(self: Any, flag: str) -> None:
    self.update_state(state="PROGRESS", meta={"done": 3})
    until(flag)
    raise Ignore


@app.task(bind=True, name="async.waits", track_started=True)
@concurrent(max_inputs=10)
async def waits_async(self: Any, flag: str) -> None:
    self.update_state(state="PROGRESS", meta={"done": 3})
    await until_async(flag)
    raise Ignore


@app.task(name="sync.started", track_started=True)
@concurrent(max_inputs=10)
def started_sync(flag: str) -> str:
    until(flag)
    return "seen"


@app.task(name="async.started", track_started=True)
@concurrent(max_inputs=10)
async def started_async(flag: str) -> str:
    await until_async(flag)
    return "seen"


waits = {"sync": waits_sync, "async": waits_async}
started = {"sync": started_sync, "async": started_async}


@both(acks_late=True)
def rejected(self: Any) -> None:
    note("rejected")
    raise Reject("no good", requeue=False)


@both(acks_late=False)
def early(self: Any) -> Any:
    return self.acks_late


@both(serializer="pickle")
def pickled(self: Any, values: set[int]) -> list[int]:
    return sorted(values | {0})


@both()
def introspects(self: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "hostname": request.hostname,
        "retries": request.retries,
        "header": request.headers and request.headers.get("mine"),
        "queue": request.delivery_info["routing_key"],
        "called_directly": request.called_directly,
        "is_eager": request.is_eager,
    }


@app.task(name="sync.recursive", bind=True)
@concurrent(max_inputs=10)
def _recursive(self: Any, times: int) -> list[Any]:
    before = self.request.args[0]
    return [before, *(self(times - 1) if times else []), self.request.args[0]]


@app.task(name="async.recursive", bind=True)
@concurrent(max_inputs=10)
async def _recursive_async(self: Any, times: int) -> list[Any]:
    before = self.request.args[0]
    return [before, *(await self(times - 1) if times else []), self.request.args[0]]


#: It calls itself, as a function, and tells the argument of its request, before and after.
recursive = {"sync": _recursive, "async": _recursive_async}


@both()
def calls(self: Any, kind: str) -> list[Any]:
    child = add[kind].apply_async((1, 2))
    return [self.request.id, child.id]
