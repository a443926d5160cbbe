"""Calls of many elements at once: who goes together, and what they get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from celery_concurrent import batched
from tests.services.calls import Calls, negated


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_what_comes_while_a_call_runs_goes_into_the_next_one(calls: Calls) -> None:
    negate = negated(calls)

    async def main() -> list[int]:
        first = asyncio.create_task(negate(1))
        await calls.begun(1)
        others = [asyncio.create_task(negate(number)) for number in range(2, 9)]
        await asyncio.sleep(0)
        calls.end(3)
        return await asyncio.gather(first, *others)

    assert asyncio.run(main()) == [-number for number in range(1, 9)]
    assert calls.seen == [[1], [2, 3, 4, 5], [6, 7, 8]]
    assert len(calls.threads) == 1
    assert calls.threads != {threading.get_ident()}


def test_what_the_loop_has_ready_goes_together(calls: Calls) -> None:
    negate = negated(calls)
    calls.end(2)

    async def main() -> None:
        await asyncio.gather(*map(negate, range(6)))

    asyncio.run(main())
    assert calls.seen == [[0, 1, 2, 3], [4, 5]]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time the test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now

    async def turns(self, until: Callable[[], object] = lambda: False, most: int = 20) -> None:
        """Some turns, until something holds; with ``most`` a million it is waited for."""
        for _ in range(most):
            if until():
                return
            await asyncio.sleep(0)


def test_the_first_waits_for_others_as_long_as_it_was_told(calls: Calls) -> None:
    negate = negated(calls, max_wait=100)
    calls.end(3)
    loop = Clock()

    async def main() -> None:
        first = asyncio.create_task(negate(1))
        await loop.turns()
        loop.now = 60
        second = asyncio.create_task(negate(2))
        await loop.turns()
        assert calls.seen == []
        loop.now = 100.1
        await loop.turns(lambda: first.done() and second.done(), most=1_000_000)
        assert calls.seen == [[1, 2]]
        # A full batch waits for nothing; a cancelled one does not fill it.
        dropped = asyncio.create_task(negate(3))
        await loop.turns()
        dropped.cancel()
        full = [asyncio.create_task(negate(number)) for number in range(3)]
        await loop.turns()
        assert calls.seen == [[1, 2]]
        full.append(asyncio.create_task(negate(3)))
        await loop.turns(lambda: all(task.done() for task in full), most=1_000_000)
        assert calls.seen == [[1, 2], [0, 1, 2, 3]]

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_cancelled_element_is_left_out_and_the_others_go_on(calls: Calls) -> None:
    negate = negated(calls)

    async def main() -> list[Any]:
        first = asyncio.create_task(negate(1))
        await calls.begun(1)
        waiting = [asyncio.create_task(negate(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        first.cancel()  # in a call already
        waiting[1].cancel()
        calls.end(2)
        return list(await asyncio.gather(first, *waiting, return_exceptions=True))

    first, second, third, fourth = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(third, asyncio.CancelledError)
    assert (second, fourth) == (-2, -4)
    assert calls.seen == [[1], [2, 4]]


def test_when_all_that_wait_are_cancelled_there_is_no_call_and_later_ones_work(
    calls: Calls,
) -> None:
    negate = negated(calls)
    calls.end()

    async def main() -> int:
        dropped = asyncio.create_task(negate(1))
        await asyncio.sleep(0)
        dropped.cancel()
        await asyncio.gather(dropped, return_exceptions=True)
        return await negate(2)

    assert asyncio.run(main()) == -2
    assert calls.seen == [[2]]


def test_any_iterable_of_results_will_do() -> None:
    @batched(max_batch_size=3)
    def lazy(numbers: list[int]) -> map[int]:
        return map(abs, numbers)

    async def main() -> list[int]:
        return await asyncio.gather(*map(lazy, (-1, -2, -3)))

    assert asyncio.run(main()) == [1, 2, 3]


def test_a_coroutine_function_is_awaited_one_call_at_a_time() -> None:
    seen: list[list[int]] = []
    running = most = 0

    @batched(max_batch_size=3)
    async def slow(numbers: list[int]) -> list[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        seen.append(numbers)
        await asyncio.sleep(0.01)
        running -= 1
        return numbers

    async def main() -> list[int]:
        return await asyncio.gather(*map(slow, range(7)))

    assert asyncio.run(main()) == list(range(7))
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]
    assert most == 1


_caller: ContextVar[str | None] = ContextVar("caller", default=None)


@pytest.mark.parametrize("max_batch_size", [1, 10], ids=["begun by its caller", "by the timer"])
def test_a_call_has_nobodys_context(max_batch_size: int) -> None:
    @batched(max_batch_size=max_batch_size)
    def on_a_thread(numbers: list[int]) -> list[str | None]:
        return [_caller.get() for _ in numbers]

    @batched(max_batch_size=max_batch_size)
    async def on_the_loop(numbers: list[int]) -> list[str | None]:
        return [_caller.get() for _ in numbers]

    async def main() -> list[str | None]:
        _caller.set("somebody")
        return [await on_a_thread(1), await on_the_loop(1)]

    assert asyncio.run(main()) == [None, None]
