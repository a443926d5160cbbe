"""Calls of many elements on one event loop, and another, and at the end of both."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import weakref

import pytest

from celery_concurrent import batched
from tests.services.calls import Calls, is_gone, negated
from tests.services.waiting import wait_for


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_what_runs_at_the_exit_of_the_process_may_call() -> None:
    code = """
import atexit
atexit.register(lambda: print(asyncio.run(double(4))))  # the first is the last to run

import asyncio
from celery_concurrent import batched

@batched(max_batch_size=2)
def double(numbers):
    return [2 * number for number in numbers]

print(asyncio.run(double(1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == ["2", "8"]


def test_a_loop_after_another_and_one_beside_another_get_their_results(calls: Calls) -> None:
    negate = negated(calls)
    calls.end(3)
    assert asyncio.run(negate(1)) == -1
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(asyncio.run(negate(n)))) for n in (2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [-3, -2]
    assert len(calls.threads) == 1


def test_a_loop_that_is_closed_is_not_kept(calls: Calls) -> None:
    negate = negated(calls)
    calls.end()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(negate(1))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    wait_for(lambda: is_gone(gone), what="its end")


def test_it_works_on_uvloop(calls: Calls) -> None:
    uvloop = pytest.importorskip("uvloop")
    negate = negated(calls)
    calls.end(2)
    loop = uvloop.new_event_loop()
    try:

        async def main() -> list[int]:
            return await asyncio.gather(*map(negate, range(6)))

        assert loop.run_until_complete(main()) == [0, -1, -2, -3, -4, -5]
        assert calls.seen == [[0, 1, 2, 3], [4, 5]]
    finally:
        loop.close()


def test_a_loop_that_ends_ends_a_call_of_a_coroutine_function() -> None:
    ended: list[str] = []

    @batched(max_batch_size=1)
    async def hangs(numbers: list[int]) -> list[int]:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("it")
        return numbers

    async def main() -> asyncio.Task[int]:
        waiting = asyncio.create_task(hangs(1))
        await asyncio.wait({waiting}, timeout=0.01)
        return waiting

    waiting = asyncio.run(main())
    assert waiting.cancelled()
    assert ended == ["it"]


def test_a_loop_that_is_closed_in_the_midst_of_a_call_is_kept_until_the_next_one_at_most(
    calls: Calls,
) -> None:
    negate = negated(calls)
    loop = asyncio.new_event_loop()

    async def abandon() -> None:
        asyncio.ensure_future(negate(1))  # noqa: RUF006  # the loop is closed under it
        await calls.begun(1)

    loop.run_until_complete(abandon())
    loop.close()
    calls.end(2)
    gone = weakref.ref(loop)
    del loop
    assert asyncio.run(negate(2)) == -2
    wait_for(lambda: is_gone(gone), what="its end")
