"""Celery's own tracer over coroutines that interleave on one loop."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from celery import current_task
from celery._state import _task_stack
from celery.app.trace import build_tracer
from greenlet import getcurrent

from celery_concurrent import concurrent, current_input_id
from celery_concurrent.bridge import Tracing, driven_by, in_tracer, wait_for
from celery_concurrent.marks import mark_of

MINE: ContextVar[str] = ContextVar("mine", default="nobody's")


class TimesOut(Tracing):
    """Raises a TimeoutError for whatever is thrown in."""

    def translate(self, error: BaseException) -> BaseException:
        return TimeoutError("in its place")


async def traced(app: Any, task: Any, *args: Any, id: str = "one", **request: Any) -> Any:
    """Trace one input as a node does; returns (result or ExceptionInfo, None or what failed)."""
    task = task._get_current_object()
    trace = build_tracer(task.name, task, app=app)
    outcome = await Tracing(partial(trace, id, args, {}, {"id": id, "root_id": id, **request}))
    return outcome[0], outcome[1]


async def value(app: Any, task: Any, *args: Any, **request: Any) -> Any:
    """What the input returned; raises what it raised."""
    result, failed = await traced(app, task, *args, **request)
    if failed is not None:
        raise failed.retval
    return result


def async_task(app: Any, **options: Any) -> Callable[[Any], Any]:
    """Register an async task that needs no result backend."""

    def register(function: Any) -> Any:
        return app.task(ignore_result=True, **options)(concurrent(max_inputs=1)(function))

    return register


def test_2000_interleaved_inputs_each_keep_their_own_stack(app: Any) -> None:
    numbers = random.Random(5)

    @async_task(app, bind=True)
    async def nested(self: Any) -> tuple[str, str]:
        await asyncio.sleep(0)
        return self.request.id, current_task.name

    @async_task(app, bind=True)
    async def identify(self: Any, number: int) -> int:
        task = asyncio.current_task()
        MINE.set(self.request.id)
        for pause in [numbers.random() / 50 for _ in range(3)]:
            await asyncio.sleep(pause)
            assert asyncio.current_task() is task
            assert in_tracer()
            assert (self.request.id, MINE.get()) == (str(number), str(number))
            assert current_task.request.id == str(number)
            assert current_input_id() == str(number)
            assert len(_task_stack) == len(self.request_stack) == 1
        inner = await asyncio.to_thread(nested.apply, task_id=f"inner {number}")
        assert inner.result == (f"inner {number}", nested.name)
        assert self.request.id == str(number)
        return number

    async def main() -> list[Any]:
        return await asyncio.gather(*(value(app, identify, n, id=str(n)) for n in range(2_000)))

    assert asyncio.run(main()) == list(range(2_000))
    assert _task_stack.top is None
    assert identify.request_stack.top is None
    assert MINE.get() == "nobody's"


def test_an_exception_fails_its_input_only(app: Any) -> None:
    @async_task(app)
    async def sometimes(number: int) -> int:
        await asyncio.sleep(0.001)
        if number % 3 == 0:
            raise KeyError(number)
        return number

    async def main() -> list[Any]:
        calls = (value(app, sometimes, n, id=str(n)) for n in range(99))
        return await asyncio.gather(*calls, return_exceptions=True)

    for number, outcome in enumerate(asyncio.run(main())):
        if number % 3 == 0:
            assert isinstance(outcome, KeyError)
            assert outcome.args == (number,)
        else:
            assert outcome == number


def test_a_traceback_begins_at_the_users_own_line(app: Any) -> None:
    @async_task(app)
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("here")

    _, failed = asyncio.run(traced(app, fails))
    frames = []
    frame = failed.retval.__traceback__
    while frame is not None:
        frames.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert frames[-1] == "fails"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_what_is_no_exception_leaves_the_tracer(app: Any, error: type[BaseException]) -> None:
    @async_task(app)
    async def leaves() -> None:
        await asyncio.sleep(0)
        raise error

    caught: list[BaseException] = []

    async def main() -> None:
        try:
            _, failed = await traced(app, leaves)
            caught.append(failed.retval)
        except BaseException as raised:  # the loop itself would let it through
            caught.append(raised)

    asyncio.run(main())
    assert [type(raised) for raised in caught] == [error]
    assert _task_stack.top is None


def test_a_cancellation_reaches_the_coroutine_and_its_finally(app: Any) -> None:
    told: list[Any] = []

    @async_task(app, bind=True)
    async def waits(self: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append(("cancelled", self.request.id))
            raise
        finally:
            await asyncio.sleep(0)
            told.append(("finally", self.request.id))

    async def main() -> None:
        task = asyncio.create_task(traced(app, waits))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert told == [("cancelled", "one"), ("finally", "one")]


def test_a_swallowed_cancellation_lets_the_input_end(app: Any) -> None:
    @async_task(app)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "ended"

    async def main() -> Any:
        task = asyncio.create_task(value(app, stubborn))
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "ended"


def test_an_exception_may_be_raised_in_the_place_of_a_cancellation(app: Any) -> None:
    """That is how a soft time limit comes in."""

    @async_task(app)
    async def limited() -> str:
        try:
            await asyncio.sleep(60)
        except TimeoutError:
            return "limited"
        return "not"

    limited_task = limited._get_current_object()
    trace = build_tracer(limited_task.name, limited_task, app=app)

    async def main() -> Any:
        call = partial(trace, "one", (), {}, {})
        tracing = TimesOut(call)

        async def run() -> Any:
            return (await tracing)[0]

        task = asyncio.create_task(run())
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "limited"


def test_gather_child_tasks_and_threads_work_in_an_input(app: Any) -> None:
    @async_task(app)
    async def spreads() -> list[Any]:
        MINE.set("spread")

        async def child(number: int) -> tuple[int, str]:
            await asyncio.sleep(0.001)
            return number, MINE.get()

        children = [asyncio.create_task(child(n)) for n in range(3)]
        return [*await asyncio.gather(*children), await asyncio.to_thread(MINE.get)]

    assert asyncio.run(value(app, spreads)) == [*((n, "spread") for n in range(3)), "spread"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with 3.11")
def test_timeouts_and_task_groups_work_as_outside_of_an_input(app: Any) -> None:
    aio: Any = asyncio  # checked as 3.10, which has none of it

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("child")

    async def timed() -> list[Any]:
        told: list[Any] = []
        task: Any = asyncio.current_task()
        try:
            async with aio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            told.append(("timeout", task.cancelling()))
        try:
            async with aio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(60))
                tasks.create_task(failing())
        except BaseException as group:
            told.append((repr(group), task.cancelling()))
        return told

    plain = asyncio.run(timed())
    assert plain[0] == ("timeout", 0)
    assert "KeyError('child')" in plain[1][0]
    assert asyncio.run(value(app, async_task(app)(timed))) == plain


def test_async_for_and_async_with_work_in_an_input(app: Any) -> None:
    class Resource:
        async def __aenter__(self) -> str:
            await asyncio.sleep(0)
            return "resource"

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(0)

    async def numbers() -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    @async_task(app)
    async def uses() -> Any:
        async with Resource() as resource:
            return resource, [number async for number in numbers()]

    assert asyncio.run(value(app, uses)) == ("resource", [0, 1, 2])


def test_an_input_shares_the_context_of_its_asyncio_task(app: Any) -> None:
    @async_task(app)
    async def shares() -> str:
        before = MINE.get()
        MINE.set("the input's")
        await asyncio.sleep(0)
        return before

    async def main() -> tuple[str, str]:
        MINE.set("the task's")
        return await value(app, shares), MINE.get()

    assert asyncio.run(main()) == ("the task's", "the input's")


def test_a_task_that_an_input_awaits_is_the_plain_coroutine(app: Any) -> None:
    @async_task(app, bind=True)
    async def inner(self: Any) -> Any:
        await asyncio.sleep(0)
        return self.request.id

    @async_task(app, bind=True)
    async def outer(self: Any) -> Any:
        return await inner(), self.request.id

    @async_task(app, bind=True)
    async def recurses(self: Any, depth: int) -> list[Any]:
        await asyncio.sleep(0)
        return [self.request.id] + (await self.run(depth - 1) if depth else [])

    # Called directly, a task has no request of its own, as in Celery.
    assert asyncio.run(value(app, outer)) == (None, "one")
    assert asyncio.run(value(app, recurses, 3)) == ["one"] * 4


def test_without_a_tracer_there_is_no_waiting() -> None:
    assert not in_tracer()


class Noted(Tracing):
    """Notes that it has ended."""

    ends = 0

    def ended(self, value: Any) -> Any:
        self.ends += 1
        return super().ended(value)


def test_a_tracing_is_a_coroutine_of_asyncios(app: Any) -> None:
    async def main() -> Any:
        tracing = Noted(lambda: getcurrent().parent.switch(None) or "done")
        task = asyncio.create_task(tracing, name="mine")
        await asyncio.sleep(0)
        assert "mine" in repr(task)
        assert await task == "done"
        return tracing.ends

    assert asyncio.run(main()) == 1


def test_one_that_is_cancelled_before_it_begins_runs_nothing(app: Any) -> None:
    ran = []

    async def main() -> None:
        task = asyncio.create_task(Tracing(lambda: ran.append(1)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not ran


def test_what_a_cancelled_one_had_is_gone_without_the_collector() -> None:
    class Large:
        pass

    known: list[weakref.ref[Large]] = []

    async def sleep() -> None:
        large = Large()
        known.append(weakref.ref(large))
        await asyncio.sleep(60)

    def call() -> None:
        with suppress(asyncio.CancelledError):
            wait_for(sleep())

    async def main() -> None:
        task = asyncio.create_task(Tracing(call))
        await asyncio.sleep(0)
        task.cancel()
        await task

    gc.disable()
    try:
        asyncio.run(main())
        assert [large() for large in known] == [None]
    finally:
        gc.enable()


def test_one_that_nobody_waits_for_ends_its_finally_blocks() -> None:
    ended = []

    def call() -> None:
        try:
            getcurrent().parent.switch("waits")
        finally:
            ended.append("finally")

    tracing = Tracing(call)
    assert tracing.send(None) == "waits"
    tracing.close()
    tracing.close()
    assert ended == ["finally"]
    Tracing(call).close()  # it has not begun
    assert ended == ["finally"]


def test_one_that_will_not_end_is_an_error() -> None:
    def call() -> None:
        for _ in range(2):
            with suppress(GeneratorExit):
                getcurrent().parent.switch("waits")

    tracing = Tracing(call)
    tracing.send(None)
    with pytest.raises(RuntimeError, match="ignored"):
        tracing.close()


def test_what_drives_a_function_is_known_from_what_wraps_it(app: Any) -> None:
    @async_task(app, bind=True)
    async def plain(self: Any) -> str:
        return str(self.name)

    @async_task(app, autoretry_for=(KeyError,))
    async def retried() -> None:
        """Wrapped by Celery."""

    found = driven_by(plain.run)
    assert found is not None
    function, mark = found
    assert mark is mark_of(plain)
    assert asyncio.run(function()) == plain.name
    assert driven_by(retried.run) is None
    assert driven_by(retried._orig_run) is not None
    assert driven_by(len) is None
