"""Clearing the frames of an error: those that run, or wait, are not for others to end."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator

import pytest
from celery.app import trace

from celery_concurrent.pool import frames


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    frames.install()
    yield
    frames.uninstall()


def test_a_coroutine_that_told_another_of_an_error_goes_on_when_that_one_is_cleared() -> None:
    async def serve(requests: asyncio.Queue[asyncio.Future[int]]) -> None:
        served = 0
        while True:
            future = await requests.get()
            try:
                served += 1
                if served == 1:
                    raise LookupError("not yet")
            except LookupError as error:
                future.set_exception(error)
            else:
                future.set_result(served)

    async def main() -> int:
        requests: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
        serving = asyncio.create_task(serve(requests))
        loop = asyncio.get_running_loop()
        first: asyncio.Future[int] = loop.create_future()
        second: asyncio.Future[int] = loop.create_future()
        requests.put_nowait(first)
        try:
            await first
        except LookupError as error:
            trace.traceback_clear(error)
        requests.put_nowait(second)
        await second
        serving.cancel()
        return second.result()

    assert asyncio.run(asyncio.wait_for(main(), 5)) == 2


def test_what_plain_frames_hold_is_freed_as_by_celery() -> None:
    class Big:
        """What a function has when it fails."""

    bigs: list[weakref.ref[Big]] = []

    def fails() -> None:
        big = Big()
        bigs.append(weakref.ref(big))
        raise ValueError

    for how in ("by the error", "by the one that is handled"):
        try:
            fails()
        except ValueError as error:
            assert bigs[-1]() is not None
            trace.traceback_clear(*([error] if how == "by the error" else []))
            assert bigs[-1]() is None


def test_celerys_own_is_put_back() -> None:
    frames.uninstall()
    assert trace.traceback_clear.__module__ == "celery.app.trace"
