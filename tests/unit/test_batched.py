"""Calls of many elements at once, on event loops of the test's own."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from celery_concurrent import BatchError, ConfigurationError, batched, concurrent


class Calls:
    """A function whose calls end when the test says so; what it was given."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.threads: set[int] = set()
        self._may_end = threading.Semaphore(0)

    def __call__(self, elements: list[Any]) -> list[Any]:
        self.seen.append(elements)
        self.threads.add(threading.get_ident())
        assert self._may_end.acquire(timeout=10)
        return [-element for element in elements]

    def end(self, count: int = 1) -> None:
        self._may_end.release(count)

    async def begun(self, count: int) -> None:
        for _ in range(1_000):
            if len(self.seen) >= count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{count} calls did not begin: {self.seen}")


@pytest.fixture
def calls() -> Calls:
    return Calls()


def negated(calls: Calls, **options: Any) -> Callable[[int], Coroutine[Any, Any, int]]:
    @batched(**{"max_batch_size": 4, **options})
    def negate(numbers: list[int]) -> list[int]:
        return calls(numbers)

    return negate


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


def test_the_first_waits_for_others_as_long_as_it_was_told(calls: Calls) -> None:
    negate = negated(calls, max_wait=0.2)
    calls.end(3)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = asyncio.create_task(negate(1))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, negate(2))
        assert loop.time() - began >= 0.2
        # A full batch waits for nothing.
        began = loop.time()
        await asyncio.gather(*map(negate, range(4)))
        assert loop.time() - began < 0.2

    asyncio.run(main())
    assert calls.seen == [[1, 2], [0, 1, 2, 3]]


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


def test_each_ones_traceback_begins_where_the_function_raised_and_does_not_grow() -> None:
    @batched(max_batch_size=50)
    def fails(numbers: list[int]) -> list[int]:
        raise ValueError

    depths = []

    async def one(number: int) -> None:
        try:
            await fails(number)
        except ValueError as error:
            depths.append(len(inspect.getinnerframes(error.__traceback__)))  # type: ignore[arg-type]

    async def main() -> None:
        await asyncio.gather(*map(one, range(50)))

    asyncio.run(main())
    assert len(set(depths)) == 1


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


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.calls: list[list[int]] = []

    @batched(max_batch_size=10)
    def scale(self, numbers: list[int]) -> list[int]:
        self.calls.append(numbers)
        return [self.factor * number for number in numbers]


def test_each_instance_has_calls_of_its_own_and_goes_when_nobody_has_it() -> None:
    models = [Model(2), Model(3)]

    async def main() -> list[int]:
        two, three = models
        return list(await asyncio.gather(two.scale(1), three.scale(1), two.scale(2)))

    assert asyncio.run(main()) == [2, 3, 4]
    assert models[0].calls == [[1, 2]]
    gone = weakref.ref(models.pop(0))
    gc.collect()
    assert gone() is None


def test_an_instance_without_a_dict_is_refused_by_name() -> None:
    class Slotted:
        __slots__ = ()

        @batched(max_batch_size=2)
        def double(self, numbers: list[int]) -> list[int]:
            return numbers

    with pytest.raises(ConfigurationError, match="Slotted has __slots__ without __dict__"):
        asyncio.run(Slotted().double(1))


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
    gc.collect()
    assert gone() is None


def test_it_works_on_uvloop(calls: Calls) -> None:
    uvloop = pytest.importorskip("uvloop")
    negate = negated(calls)
    calls.end(2)
    loop = uvloop.new_event_loop()
    try:

        async def main() -> list[int]:
            return await asyncio.gather(*map(negate, range(6)))

        assert loop.run_until_complete(main()) == [0, -1, -2, -3, -4, -5]
    finally:
        loop.close()


def test_a_loop_that_ends_with_a_call_of_a_coroutine_function_leaves_nothing_running() -> None:
    @batched(max_batch_size=1)
    async def hangs(numbers: list[int]) -> list[int]:
        await asyncio.sleep(3600)
        return numbers

    async def main() -> None:
        await asyncio.wait({asyncio.create_task(hangs(1))}, timeout=0.01)

    asyncio.run(main())


def test_the_function_keeps_its_name_and_shows_one_element() -> None:
    @batched(max_batch_size=2)
    def shout(words: list[str]) -> list[str]:
        """Say it loudly."""
        return [word.upper() for word in words]

    assert shout.__name__ == "shout"
    assert shout.__doc__ == "Say it loudly."
    assert inspect.iscoroutinefunction(shout)
    assert str(inspect.signature(shout)).startswith("(words)")
    by_name: Any = shout
    assert asyncio.run(by_name(words="hey")) == "HEY"
    with pytest.raises(TypeError, match="missing a required argument: 'words'"):
        asyncio.run(by_name())
    with pytest.raises(TypeError, match="too many positional arguments"):
        asyncio.run(by_name("a", "b"))


def _one(numbers: list[int]) -> list[int]:
    return numbers


def _two(numbers: list[int], factor: int) -> list[int]:
    return [factor * number for number in numbers]


def _any(*numbers: int) -> list[int]:
    return list(numbers)


def _yields(numbers: list[int]) -> Any:
    yield from numbers


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda: batched(_one), "without a keyword"),  # type: ignore[arg-type]
        (batched, "@batched needs max_batch_size"),
        (lambda: batched(max_batch_size=0), "max_batch_size=0 must be an int of 1 or more"),
        (lambda: batched(max_batch_size=True), "max_batch_size=True must be an int"),
        (lambda: batched(max_batch_size=2, max_wait=-1), "max_wait=-1 must be seconds"),
        (lambda: batched(max_batch_size=2, wait_ms=5), "wait_ms=5 is not a parameter"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(_yields), "cannot go on the generator _yields"),
        (lambda: batched(max_batch_size=2)(_any), "cannot go on _any(*numbers"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(_two), "make each element a tuple"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(Model), "cannot go on <class"),  # type: ignore[arg-type]
        (
            lambda: batched(max_batch_size=2)(concurrent(max_inputs=2)(lambda numbers: numbers)),
            "stands above @concurrent",
        ),
    ],
)
def test_misuse_is_told_at_definition_time(misuse: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        misuse()
    assert words in str(caught.value)
