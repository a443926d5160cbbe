"""Calls of many elements that fail, hang, or cannot begin."""

from __future__ import annotations

import _thread
import asyncio
import gc
import traceback
import weakref
from contextlib import suppress
from typing import Any

import pytest

from celery_concurrent import BatchError, batched
from celery_concurrent.batches import stuck
from tests.services.calls import Calls, negated
from tests.services.waiting import wait_for


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_what_the_function_raises_is_raised_for_all_of_its_call_and_no_other() -> None:
    @batched(max_batch_size=2)
    def fails(numbers: list[int]) -> list[int]:
        if 1 in numbers:
            raise ValueError("one is too few")
        return numbers

    async def main() -> list[Any]:
        return list(await asyncio.gather(*map(fails, range(4)), return_exceptions=True))

    first, second, *others = asyncio.run(main())
    assert str(first) == str(second) == "one is too few"
    assert others == [2, 3]


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_each_ones_traceback_begins_where_the_error_came_from_and_does_not_grow(how: str) -> None:
    error = ValueError("no")

    @batched(max_batch_size=50)
    def fails(numbers: list[int]) -> list[Exception]:
        try:
            raise error
        except ValueError:
            if how == "raised":
                raise
        return [error] * len(numbers)

    seen: list[list[str]] = []

    async def one(number: int) -> None:
        try:
            await fails(number)
        except ValueError as raised:
            frames = traceback.extract_tb(raised.__traceback__)
            seen.append([frame.name for frame in frames])

    async def main() -> None:
        await asyncio.gather(*map(one, range(50)))

    asyncio.run(main())
    assert len(seen) == 50
    assert {tuple(names) for names in seen} == {tuple(seen[0])}
    assert seen[0][0] == "one"
    assert seen[0][-1] == "fails"


def test_a_call_that_failed_leaves_nothing_to_the_collector() -> None:
    class Big:
        """An element, or what it made."""

    bigs: list[weakref.ref[Big]] = []

    @batched(max_batch_size=2)
    def fails(elements: list[Big]) -> list[Big]:
        made = Big()
        bigs.extend(map(weakref.ref, [*elements, made]))
        raise ValueError("no")

    async def main() -> None:
        for _ in range(2):  # the thread may still have the second one's order
            with suppress(ValueError):
                await fails(Big())
            await asyncio.sleep(0)

    gc.disable()
    try:
        asyncio.run(main())
        # The thread may be at its last lines.
        wait_for(lambda: [big() for big in bigs[:2]] == [None, None], what="their end")
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("sync", StopIteration),
        ("sync", SystemExit),
        ("sync", KeyboardInterrupt),
        ("async", SystemExit),
        ("async", KeyboardInterrupt),
    ],
)
def test_whatever_is_raised_nobody_waits_for_good(kind: str, error: type[BaseException]) -> None:
    @batched(max_batch_size=2)
    def fails(numbers: list[int]) -> list[int]:
        raise error

    @batched(max_batch_size=2)
    async def fails_async(numbers: list[int]) -> list[int]:
        raise error

    call = fails if kind == "sync" else fails_async
    seen: list[BaseException] = []

    async def one() -> None:
        try:
            await call(1)
        except BaseException as raised:
            seen.append(raised)

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(one(), one(), one()), 10)

    asyncio.run(main())
    assert len(seen) == 3
    expected = RuntimeError if error is StopIteration else error
    assert {type(raised) for raised in seen} == {expected}


@batched(max_batch_size=2)
async def cancels_a_task(numbers: list[int]) -> list[int]:
    task = asyncio.ensure_future(asyncio.sleep(10))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task
    return numbers


@batched(max_batch_size=2)
def raises_it(numbers: list[int]) -> list[int]:
    raise asyncio.CancelledError


@batched(max_batch_size=2)
def returns_it(numbers: list[int]) -> list[asyncio.CancelledError]:
    return [asyncio.CancelledError() for _ in numbers]


@pytest.mark.parametrize("call", [cancels_a_task, raises_it, returns_it])
def test_a_call_that_is_cancelled_is_an_error_and_none_of_its_callers_is(call: Any) -> None:
    async def main() -> list[Any]:
        return list(await asyncio.gather(call(1), call(2), return_exceptions=True))

    for error in asyncio.run(main()):
        assert isinstance(error, BatchError)
        assert str(error) == f"a call of {call.__name__} was cancelled"
        assert isinstance(error.__cause__, asyncio.CancelledError)


def test_a_call_of_a_coroutine_function_that_nobody_waits_for_is_cancelled() -> None:
    ended: list[str] = []

    @batched(max_batch_size=3)
    async def hangs(numbers: list[int]) -> list[int]:
        if 0 not in numbers:
            return numbers
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("it")
        return numbers

    async def main() -> int:
        first, second = (asyncio.create_task(hangs(0)) for _ in range(2))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(hangs(7))
        first.cancel()
        await asyncio.sleep(0.01)
        assert ended == []
        second.cancel()
        return await behind

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 7
    assert ended == ["it"]


def test_a_call_that_only_its_coroutine_refers_to_is_not_collected() -> None:
    @batched(max_batch_size=1)
    async def waits(numbers: list[int]) -> list[int]:
        future = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        return [await future]

    futures: list[weakref.ref[asyncio.Future[int]]] = []

    async def main() -> int:
        waiting = asyncio.ensure_future(waits(1))
        await asyncio.sleep(0.01)
        gc.collect()
        future = futures[0]()
        assert future is not None, "its task was collected"
        future.set_result(7)
        return await waiting

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 7


def test_what_is_cancelled_under_a_hung_call_is_let_go_and_the_call_is_told_of(
    calls: Calls, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "DEAF_AFTER", 0.01)

    class Big:
        def __neg__(self) -> int:
            return 0

    bigs: list[weakref.ref[Big]] = []

    @batched(max_batch_size=4)
    def hangs(elements: list[Any]) -> list[Any]:
        return calls(elements)

    async def one() -> None:
        big = Big()
        bigs.append(weakref.ref(big))
        await hangs(big)

    async def main() -> None:
        in_it = [asyncio.create_task(hangs(number)) for number in range(4)]
        await calls.begun(1)
        behind = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks = [*in_it, *behind]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del task, tasks, behind
        await asyncio.sleep(0)  # this turn has what gather returned
        gc.collect()
        assert [big() for big in bigs] == [None] * 3
        await asyncio.sleep(5 * stuck.DEAF_AFTER)
        calls.end()

    asyncio.run(asyncio.wait_for(main(), 10))
    (record,) = caplog.records
    told = "a call of hangs runs on though nobody waits for it: elements=4 waiting=0"
    assert record.getMessage() == told


def test_behind_a_stuck_call_nobody_waits_and_the_node_is_told(calls: Calls) -> None:
    negate = negated(calls)
    drained: list[bool] = []
    watch = stuck.Watch(timeout=0.01, drain=lambda: drained.append(True))

    async def main() -> None:
        hung = asyncio.create_task(negate(1))
        await calls.begun(1)
        behind = asyncio.create_task(negate(2))
        await asyncio.sleep(0)
        hung.cancel()
        for waiting in (behind, asyncio.create_task(negate(3))):
            with pytest.raises(BatchError, match="a call of negate before this is stuck"):
                await waiting
        assert drained == [True]
        calls.end(2)

    stuck.attach(watch)
    try:
        asyncio.run(asyncio.wait_for(main(), 10))
    finally:
        stuck.detach(watch)
    assert stuck.current() is None


def test_a_call_that_cannot_be_started_fails_and_none_behind_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @batched(max_batch_size=1)
    def echo(numbers: list[int]) -> list[int]:
        return numbers

    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> list[Any]:
        return list(await asyncio.gather(*map(echo, range(3)), return_exceptions=True))

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start)
        assert [str(e) for e in asyncio.run(main())] == ["can't start new thread"] * 3
    assert asyncio.run(main()) == [0, 1, 2]


def test_none_is_forgotten_behind_a_call_that_cannot_be_started() -> None:
    may_end = asyncio.Event()

    @batched(max_batch_size=2)
    async def echo(numbers: list[int]) -> list[int]:
        await may_end.wait()
        return numbers

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no more tasks")

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(echo(number)) for number in range(7)]
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().set_task_factory(refuse)
        may_end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        asyncio.get_running_loop().set_task_factory(None)
        return [task.exception() or task.result() for task in tasks]

    first, second, *others = asyncio.run(main())
    assert (first, second) == (0, 1)
    assert [str(error) for error in others] == ["no more tasks"] * 5


def test_an_exception_among_the_results_is_its_elements_alone() -> None:
    @batched(max_batch_size=4)
    def roots(numbers: list[int]) -> list[float | ValueError]:
        return [n**0.5 if n >= 0 else ValueError(f"{n} has no root") for n in numbers]

    async def main() -> list[Any]:
        return list(await asyncio.gather(*map(roots, (4, -1, 9)), return_exceptions=True))

    first, second, third = asyncio.run(main())
    assert (first, third) == (2, 3)
    assert str(second) == "-1 has no root"


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1], "was given 2 elements and returned 1 results"),
        (None, "was given 2 elements and returned None"),
        ("ab", "was given 2 elements and returned 'ab'"),
        ({1: 2, 3: 4}, "was given 2 elements and returned {1: 2, 3: 4}"),
    ],
)
def test_another_number_of_results_is_an_error_that_names_both(returned: Any, words: str) -> None:
    @batched(max_batch_size=2)
    def wrong(numbers: list[int]) -> Any:
        return returned

    async def main() -> list[Any]:
        return list(await asyncio.gather(wrong(1), wrong(2), return_exceptions=True))

    for error in asyncio.run(main()):
        assert isinstance(error, BatchError)
        assert f"wrong {words}" in str(error)
        assert "return a list with one result per element" in str(error)
