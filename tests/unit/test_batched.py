"""Calls of many elements at once, on event loops of the test's own."""

from __future__ import annotations

import _thread
import asyncio
import copy
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from celery_concurrent import BatchError, ConfigurationError, batched, concurrent
from celery_concurrent.batches import stuck
from tests.services.waiting import wait_for


def is_gone(reference: weakref.ref[Any]) -> bool:
    """Whether nothing keeps it, once the thread of a call is over its last lines."""
    gc.collect()
    return reference() is None


class Calls:
    """A function whose calls end when the test says so; what it was given."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.threads: set[int] = set()
        self.ended = 0
        self._may_end = threading.Semaphore(0)

    def __call__(self, elements: list[Any]) -> list[Any]:
        self.seen.append(elements)
        self.threads.add(threading.get_ident())
        assert self._may_end.acquire(timeout=10)
        self.ended += 1
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


def awaiting(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await function(*args)

    return wrapper


def giving(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def elsewhere(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    return wrapper


class Wrapped:
    @batched(max_batch_size=2)
    @awaiting
    async def awaited(self, numbers: list[int]) -> list[int]:
        return numbers

    @batched(max_batch_size=2)
    @giving
    async def given(self, numbers: list[int]) -> list[int]:
        return numbers

    @batched(max_batch_size=2)
    @elsewhere
    def threaded(self, numbers: list[int]) -> list[int]:
        return numbers

    @staticmethod
    @batched(max_batch_size=2)
    @giving
    async def static(numbers: list[int]) -> list[int]:
        return numbers

    @classmethod
    @batched(max_batch_size=2)
    def of_class(cls, numbers: list[int]) -> list[int]:
        return numbers


@pytest.mark.parametrize("name", ["awaited", "given", "threaded", "static", "of_class"])
def test_decorators_below_and_above_it_may_be_of_any_kind(name: str) -> None:
    assert asyncio.run(asyncio.wait_for(getattr(Wrapped(), name)(3), 10)) == 3


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
    wait_for(lambda: is_gone(gone), what="its end")


class Base:
    @batched(max_batch_size=10)
    async def tell(self, numbers: list[int]) -> list[str]:
        return [f"base {number}" for number in numbers]


class Derived(Base):
    @batched(max_batch_size=10)
    async def tell(self, numbers: list[int]) -> list[str]:
        told = [super(Derived, self).tell(number) for number in numbers]
        return [f"derived, {base}" for base in await asyncio.gather(*told)]


def test_a_method_and_the_one_it_overrides_have_calls_of_their_own() -> None:
    derived = Derived()

    async def main() -> list[str]:
        return [await derived.tell(1), await Base.tell(derived, 2), await derived.tell(3)]

    told = asyncio.run(asyncio.wait_for(main(), 10))
    assert told == ["derived, base 1", "base 2", "derived, base 3"]


@dataclass  # equal to another one, and so without a hash
class Settings:
    factor: int

    @batched(max_batch_size=10)
    def scale(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]


def test_a_copy_of_an_instance_is_one_of_its_own() -> None:
    settings = Settings(2)

    async def main() -> list[int]:
        first = await settings.scale(1)
        sent = pickle.loads(pickle.dumps(settings))
        others = [copy.copy(settings), copy.deepcopy(settings), sent]
        for other in others:
            other.factor = 100
        return [first, await Settings(2).scale(1), *[await other.scale(1) for other in others]]

    assert asyncio.run(main()) == [2, 2, 100, 100, 100]


def test_an_instance_that_cannot_be_watched_is_refused_by_name() -> None:
    class Slotted:
        __slots__ = ()

        @batched(max_batch_size=2)
        def double(self, numbers: list[int]) -> list[int]:
            return numbers

    with pytest.raises(ConfigurationError, match="Slotted, whose __slots__ leave out __weakref__"):
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


def _default(numbers: list[int] = []) -> list[int]:  # noqa: B006  # never called
    return numbers


class Alone:
    def method(self) -> list[int]:
        return []


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
        (lambda: batched(max_batch_size=2, wait_ms=5), "it is max_wait here, in seconds"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(_yields), "cannot go on the generator _yields"),
        (lambda: batched(max_batch_size=2)(_any), "cannot go on _any(*numbers"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(_two), "make each element a tuple"),  # type: ignore[arg-type]
        (lambda: batched(max_batch_size=2)(_default), "without a default"),
        (lambda: batched(max_batch_size=2)(Alone.method), "or self and one list"),  # type: ignore[arg-type]
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
