"""Maps that are iterated: results as they arrive, bounds, errors, and where it all may run."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from celery_concurrent import (
    Arguments,
    ConfigurationError,
    MissingExtraError,
    PublishError,
    aresult,
    task_map,
)
from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project

SOURCE = """
import asyncio
import time
from celery import Celery
from celery_concurrent import Arguments, concurrent, task_map

app = Celery(__name__)

@app.task(queue="inner")
@concurrent(max_inputs=200)
async def double(value, plus=0, seconds=0.0):
    await asyncio.sleep(seconds)
    return value * 2 + plus

@app.task(queue="inner")
@concurrent(max_inputs=200)
async def fail_at(value, bad):
    if value == bad:
        raise ValueError(f"bad {value}")
    return value

@app.task(queue="outer")
@concurrent(max_inputs=2)
async def async_for(count):
    return sorted([value async for value in task_map(double, range(count))])

@app.task(queue="outer")
@concurrent(max_inputs=2)
async def for_in_async(count):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    slow = (Arguments(number, seconds=0.2) for number in range(count))
    values = sorted(task_map(double, slow))
    ticking.cancel()
    return values, ticks > 10

@app.task(queue="outer")
@concurrent(max_inputs=2)
def for_in_sync(count):
    return sorted(task_map(double, range(count)))

@app.task(queue="inner", ignore_result=True)
def ignored(value):
    return value
"""


@pytest.fixture(scope="module")
def project(
    module_project: MakeProject, module_node: StartNode, module_redis_broker: Broker
) -> Project:
    made = module_project(SOURCE, broker=module_redis_broker)
    module_node(made, "-Q", "inner,outer")
    return made


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    """What a loop or a thread leaves behind is told by warnings, when it is collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
        gc.collect()


def test_for_gives_values_as_they_arrive(project: Project) -> None:
    double = project.tasks.double
    assert sorted(task_map(double, range(700), chunk=100)) == [n * 2 for n in range(700)]
    late_first = [Arguments(0, seconds=0.6), Arguments(1)]
    assert list(task_map(double, late_first)) == [2, 0]
    assert list(task_map(double, late_first).in_order()) == [0, 2]
    assert list(task_map(double, late_first).indexed()) == [(1, 2), (0, 0)]
    assert list(task_map(double, [])) == []


def test_async_for_gives_the_same(project: Project) -> None:
    double = project.tasks.double

    async def main() -> None:
        values = [value async for value in task_map(double, range(700), chunk=100)]
        assert sorted(values) == [n * 2 for n in range(700)]
        late_first = [Arguments(0, seconds=0.6), Arguments(1)]
        assert [value async for value in task_map(double, late_first)] == [2, 0]
        assert [value async for value in task_map(double, late_first).in_order()] == [0, 2]
        pairs = [pair async for pair in task_map(double, late_first).indexed()]
        assert pairs == [(1, 2), (0, 0)]
        handles = await task_map(double, range(3)).apublish()
        assert [await aresult(handle, timeout=10) for handle in handles] == [0, 2, 4]

    asyncio.run(main())


def test_handles_arguments_and_options(project: Project) -> None:
    double = project.tasks.double
    handles = task_map(double, [1, Arguments(2, plus=1)], kwargs={"plus": 10}).publish()
    assert all(isinstance(handle, AsyncResult) for handle in handles)
    assert [handle.get(timeout=10) for handle in handles] == [12, 5]
    assert list(task_map(double, [1], countdown=0.2, priority=3, headers={"x": 1})) == [2]
    assert list(task_map(double, task_map(double, [1, 2]).in_order()).in_order()) == [4, 8]


@pytest.mark.parametrize("name", ["async_for", "for_in_sync"])
def test_inside_of_tasks(project: Project, name: str) -> None:
    values = getattr(project.tasks, name).delay(20).get(timeout=30)
    assert values == [number * 2 for number in range(20)]


def test_for_in_an_async_input_does_not_block_its_node(project: Project) -> None:
    values, has_ticked = project.tasks.for_in_async.delay(20).get(timeout=30)
    assert values == [number * 2 for number in range(20)]
    assert has_ticked


@pytest.mark.eventlet
def test_inside_of_tasks_under_eventlet(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=redis_broker)
    celery_node(project, "-Q", "inner,outer", pool="eventlet")
    for name in ("async_for", "for_in_sync"):
        values = getattr(project.tasks, name).delay(20).get(timeout=30)
        assert values == [number * 2 for number in range(20)]


@pytest.mark.parametrize("in_order", [False, True])
def test_never_more_than_max_pending_and_nothing_is_remembered(
    project: Project, in_order: bool
) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        while read < 2_000:
            read += 1
            yield read

    mapped = task_map(project.tasks.double, numbers(), chunk=10, max_pending=25)
    most = 0
    for given, _ in enumerate(mapped.in_order() if in_order else mapped):
        most = max(most, read - given)
        assert len(mapped.published) <= 25
    assert given == read - 1 == 1_999
    assert 15 < most <= 26  # of the one that was just given, too
    assert mapped.published == mapped.uncertain == []
    assert sum(isinstance(each, AsyncResult) for each in gc.get_objects()) < 100


def test_a_slow_iterable_holds_up_neither_its_inputs_nor_results(project: Project) -> None:
    is_heard = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(1_000):
            yield number
            if is_heard.wait(0.01):  # the first result came while this went on
                return

    given = 0
    for _ in task_map(project.tasks.double, numbers(), chunk=500, max_pending=None):
        given += 1
        is_heard.set()
    assert 0 < given < 900


def test_an_inputs_error_ends_the_loop_and_the_others_run_on(project: Project) -> None:
    calls = [Arguments(number, bad=2) for number in range(5)]
    mapped = task_map(project.tasks.fail_at, calls)
    with pytest.raises(ValueError, match="bad 2"):
        list(mapped.in_order())
    assert [handle.get(timeout=10) for handle in mapped.published] == [3, 4]
    mapped = task_map(project.tasks.fail_at, calls, return_exceptions=True)
    values = list(mapped.in_order())
    assert isinstance(values[2], ValueError)
    assert values[:2] + values[3:] == [0, 1, 3, 4]


def test_breaking_off_leaves_nothing_behind(project: Project) -> None:
    async def main() -> None:
        async for _ in task_map(project.tasks.double, range(50)):
            break

    asyncio.run(main())
    for _ in task_map(project.tasks.double, range(50)):
        break
    gc.collect()


def test_what_an_iterable_raises_carries_what_was_published(project: Project) -> None:
    def numbers(error: BaseException) -> Iterator[int]:
        yield from range(25)
        raise error

    double = project.tasks.double
    mapped = task_map(double, numbers(OSError("no more pages")), chunk=10)
    with pytest.raises(PublishError, match=r"no more pages.* after 25 inputs") as caught:
        mapped.publish()
    assert isinstance(caught.value.__cause__, OSError)
    assert [handle.get(timeout=10) for handle in caught.value.published] == [
        number * 2 for number in range(25)
    ]
    mapped = task_map(double, numbers(KeyboardInterrupt()), chunk=10)
    with pytest.raises(KeyboardInterrupt):
        mapped.publish()
    assert len(mapped.published) == 20
    assert mapped.uncertain == []


def test_an_input_that_cannot_be_sent_names_itself(project: Project) -> None:
    double = project.tasks.double
    with pytest.raises(PublishError, match=r"input 3 of .*double was not published") as caught:
        task_map(double, [0, 1, 2, object(), 4]).publish()
    assert [handle.get(timeout=10) for handle in caught.value.published] == [0, 2, 4]
    assert caught.value.uncertain == caught.value.refused == []
    with pytest.raises(PublishError, match="input 0") as caught:
        task_map(project.tasks.ignored, [Arguments()]).publish()
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(PublishError, match="input 1") as caught:
        task_map(double, [0, object()], app_id="one by one").publish()
    assert len(caught.value.published) == 1
    assert caught.value.uncertain == []


def test_errors_name_the_value_and_the_remedy(project: Project) -> None:
    double = project.tasks.double
    number: Any = 5
    cases: dict[str, Callable[[], Any]] = {
        r"task_map\(\) got 5, a int: give it a task": lambda: task_map(number, []),
        r"got .*double\(\), a Signature": lambda: task_map(double.s(), []),
        r"got 5, a int, for its inputs": lambda: task_map(double, number),
        r"chunk=0 of task_map\(\) must be an int of 1 or more": lambda: task_map(
            double, [], chunk=0
        ),
        r"max_pending=True": lambda: task_map(double, [], max_pending=True),
        r"task_id='x' cannot be the id of each": lambda: task_map(double, [], task_id="x"),
        r"the results of .*ignored are ignored": lambda: list(task_map(project.tasks.ignored, [1])),
        r"\(ignore_result\)": lambda: list(task_map(double, [1], ignore_result=True)),
        r"write `async for`": lambda: asyncio.run(_blocking(double)),
    }
    for match, make in cases.items():
        with pytest.raises(ConfigurationError, match=match):
            make()
    mapped = task_map(double, [1])
    mapped.publish()
    with pytest.raises(ConfigurationError, match="was used before"):
        list(mapped)


async def _blocking(double: Any) -> None:
    list(task_map(double, [1]))


def test_the_bar_shows_what_is_done(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    list(task_map(project.tasks.double, range(30), progress=True))
    assert "double" in shown.getvalue()
    assert "30/30" in shown.getvalue()
    task_map(project.tasks.double, iter(range(7)), progress=True).publish()
    assert "7/?" in shown.getvalue()
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[progress\]"):
        task_map(project.tasks.double, [1], progress=True).publish()


@pytest.mark.rabbitmq
def test_on_rabbitmq(
    celery_project: MakeProject, celery_node: StartNode, rabbitmq_broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=rabbitmq_broker)
    celery_node(project, "-Q", "inner,outer")
    double = project.tasks.double
    assert sorted(task_map(double, range(700), chunk=100)) == [n * 2 for n in range(700)]
    assert project.tasks.async_for.delay(20).get(timeout=30) == [n * 2 for n in range(20)]


def test_other_backends_and_transports(
    celery_project: MakeProject, celery_node: StartNode, tmp_path: Path
) -> None:
    folder = {name: str(tmp_path / name) for name in ("queue", "control")}
    broker = Broker(kind="file", url="filesystem://", backend=f"file://{tmp_path}")
    source = SOURCE + (
        "\napp.conf.broker_transport_options = "
        f"dict(data_folder_in={folder['queue']!r}, data_folder_out={folder['queue']!r}, "
        f"control_folder={folder['control']!r})\n"
    )
    for path in folder.values():
        Path(path).mkdir()
    project = celery_project(source, broker=broker)
    celery_node(project, "-Q", "inner")
    double = project.tasks.double
    assert list(task_map(double, range(8)).in_order()) == [n * 2 for n in range(8)]

    async def main() -> list[int]:
        return [value async for value in task_map(double, range(8)).in_order()]

    assert asyncio.run(main()) == [n * 2 for n in range(8)]


def test_eager(project: Project) -> None:
    project.app.conf.task_always_eager = True
    try:
        assert list(task_map(project.tasks.double, range(3)).in_order()) == [0, 2, 4]
        assert list(task_map(project.tasks.ignored, range(3)).in_order()) == [0, 1, 2]
        with pytest.raises(ValueError, match="bad 1"):
            list(task_map(project.tasks.fail_at, [0, 1], kwargs={"bad": 1}))
    finally:
        project.app.conf.task_always_eager = False
