"""``apply()`` and ``task_always_eager`` of async tasks, inside and outside of a running loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import chain, chord, current_task, group
from celery.exceptions import MaxRetriesExceededError, Retry

from celery_concurrent import acall, aresult, concurrent, current_function_call_id, current_input_id
from tests.services.waiting import wait_for

Run = Callable[[Callable[[], Any]], Any]


def outside(call: Callable[[], Any]) -> Any:
    """Call where no event loop runs."""
    return call()


def inside(call: Callable[[], Any]) -> Any:
    """Call from a coroutine, as sync code of an async program does."""

    async def main() -> Any:
        return call()

    return asyncio.run(main())


@pytest.fixture(params=[outside, inside], ids=["outside", "inside"])
def where(request: pytest.FixtureRequest) -> Run:
    run: Run = request.param
    return run


@pytest.fixture
def tasks(eager_app: Any) -> Any:
    """Async tasks of an eager app, by name."""
    app = eager_app

    @app.task(name="eager.add")
    @concurrent(max_inputs=2)
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @app.task(name="eager.total")
    @concurrent(max_inputs=2)
    async def total(numbers: list[int]) -> int:
        await asyncio.sleep(0)
        return sum(numbers)

    @app.task(name="eager.fail")
    @concurrent(max_inputs=2)
    async def fail(*_: Any) -> None:
        await asyncio.sleep(0)
        raise KeyError("eager")

    @app.task(bind=True, name="eager.identify", max_retries=3)
    @concurrent(max_inputs=2)
    async def identify(self: Any, retries: int = 0) -> tuple[Any, ...]:
        await asyncio.sleep(0)
        if self.request.retries < retries:
            raise self.retry(countdown=0)
        return (
            self.request.id,
            current_task.request.id,
            current_input_id(),
            current_function_call_id(),
            self.request.retries,
            self.request.is_eager,
        )

    app.finalize()  # Celery makes lazy tasks at their first use, which threads may not share
    return SimpleNamespace(add=add, total=total, fail=fail, identify=identify)


def test_apply_awaits_the_task(tasks: Any, where: Run) -> None:
    assert where(lambda: tasks.add.apply((1, 2)).get()) == 3


def test_delay_of_an_eager_app_awaits_the_task(tasks: Any, where: Run) -> None:
    assert where(lambda: tasks.add.delay(1, 2).get()) == 3
    assert where(lambda: tasks.add.apply_async((1, 2)).get()) == 3


def test_each_eager_input_has_its_own_request(tasks: Any, where: Run) -> None:
    found = where(lambda: tasks.identify.apply_async(task_id="one").get())
    assert found == ("one", "one", "one", "one", 0, True)


def test_an_eager_retry_runs_again(tasks: Any, where: Run) -> None:
    found = where(lambda: tasks.identify.apply_async((2,), task_id="one").get())
    assert found == ("one", "one", "one", "one", 2, True)


def test_eager_retries_end(tasks: Any, where: Run) -> None:
    with pytest.raises((MaxRetriesExceededError, Retry)):
        where(lambda: tasks.identify.apply_async((9,), task_id="one").get())


def test_a_chain_a_group_and_a_chord_run_eagerly(tasks: Any, where: Run) -> None:
    add, total = tasks.add, tasks.total
    assert where(lambda: chain(add.s(1, 2), add.s(10)).apply_async().get()) == 13
    assert where(lambda: group(add.s(n, n) for n in range(4))().get()) == [0, 2, 4, 6]
    assert where(lambda: chord([add.s(n, n) for n in range(4)])(total.s()).get()) == 12


def test_callbacks_of_an_eager_input_run(tasks: Any, app: Any, where: Run) -> None:
    seen: list[Any] = []

    @app.task(name="eager.note")
    @concurrent(max_inputs=1)
    async def note(value: Any) -> None:
        seen.append(value)

    where(lambda: tasks.add.apply_async((1, 2), link=note.s()))
    assert seen == [3]


def test_an_error_is_kept_in_the_result_and_raised_by_get(tasks: Any, where: Run) -> None:
    result = where(tasks.fail.apply)
    assert result.state == "FAILURE"
    assert "eager" in result.traceback
    with pytest.raises(KeyError, match="eager"):
        result.get()


def test_an_error_propagates_where_the_app_says_so(tasks: Any, app: Any, where: Run) -> None:
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError, match="eager"):
        where(tasks.fail.delay)


def test_a_task_that_calls_tasks_runs_them_in_itself(tasks: Any, app: Any, where: Run) -> None:
    @app.task(bind=True, name="eager.parent")
    @concurrent(max_inputs=1)
    async def parent(self: Any) -> tuple[Any, ...]:
        child = await acall(tasks.identify)
        result = await aresult(tasks.add.delay(1, 2))
        nested = tasks.add.apply((2, 3)).get(disable_sync_subtasks=False)
        awaited = await tasks.add(3, 4)
        return child[0] != self.request.id, child[3], result, nested, awaited, self.request.id

    found = where(lambda: parent.apply_async(task_id="one").get())
    assert found == (True, "one", 3, 5, 7, "one")


def test_eager_inputs_of_one_thread_share_a_loop(app: Any) -> None:
    """So that a session that a service keeps stays usable."""

    @app.task(name="eager.loop")
    @concurrent(max_inputs=1)
    async def loop() -> int:
        return id(asyncio.get_running_loop())

    assert loop.apply().get() == loop.apply().get()


def test_eager_inputs_of_several_threads_do_not_meet(tasks: Any) -> None:
    found: dict[str, Any] = {}

    def call(name: str) -> None:
        for _ in range(20):
            found[name] = tasks.identify.apply_async(task_id=name).result

    threads = [threading.Thread(target=call, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: ids[:4] for name, ids in found.items()} == {
        f"t{n}": (f"t{n}",) * 4 for n in range(8)
    }


def test_the_loop_of_a_thread_is_closed_with_it(app: Any) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @app.task(name="eager.loop")
    @concurrent(max_inputs=1)
    async def loop() -> None:
        loops.append(asyncio.get_running_loop())

    thread = threading.Thread(target=loop.apply)
    thread.start()
    thread.join()
    wait_for(loops[0].is_closed)


def test_a_sync_task_called_eagerly_from_a_coroutine_may_call_async_ones(
    tasks: Any, app: Any
) -> None:
    @app.task(name="eager.sync")
    @concurrent(max_inputs=1)
    def sync() -> Any:
        return tasks.add.apply((1, 2)).get(disable_sync_subtasks=False), current_input_id()

    assert inside(lambda: sync.apply(task_id="one").get()) == (3, "one")


def test_outside_of_inputs_there_are_no_ids() -> None:
    assert current_input_id() is None
    assert current_function_call_id() is None


def test_map_starmap_and_chunks_of_an_async_task_await_each_call(app: Any, where: Run) -> None:
    @app.task
    @concurrent(max_inputs=2)
    async def add(x: int, y: int = 1) -> int:
        await asyncio.sleep(0)
        return x + y

    assert where(lambda: add.map([1, 2]).apply().get()) == [2, 3]
    assert where(lambda: add.starmap([(1, 2), (3, 4)]).apply().get()) == [3, 7]
    parts = add.chunks([(1, 2), (3, 4), (5, 6)], 2).group()
    assert where(lambda: parts.apply().get()) == [[3, 7], [11]]
