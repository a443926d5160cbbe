"""Which input am I: in child tasks, in helper threads, and on every log record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import current_task
from celery._state import _task_stack

from celery_concurrent import concurrent, current_function_call_id, current_input_id, logs
from celery_concurrent.context import CURRENT_INPUT, carried


@pytest.fixture
def ids() -> Iterator[tuple[str, str]]:
    """The ids of an input of a node, set here."""
    token = CURRENT_INPUT.set(SimpleNamespace(id="input", root_id="root"))
    yield ("input", "root")
    CURRENT_INPUT.reset(token)


@pytest.fixture
def record_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def found() -> tuple[str | None, str | None]:
    return current_input_id(), current_function_call_id()


def test_ids_are_seen_in_child_tasks_and_threads(ids: tuple[str, str]) -> None:
    async def child() -> Any:
        await asyncio.sleep(0)
        return found()

    async def main() -> list[Any]:
        here = found()
        children = await asyncio.gather(child(), asyncio.create_task(child()))
        return [here, *children, await asyncio.to_thread(found)]

    assert asyncio.run(main()) == [ids] * 4


def test_the_id_of_a_call_is_that_of_its_first_input(app: Any) -> None:
    @app.task(name="unit.found")
    @concurrent(max_inputs=1)
    def task() -> None: ...

    _task_stack.push(task)
    for root, expected in (("first", "first"), (None, "one")):
        task.push_request(id="one", root_id=root)
        assert found() == ("one", expected)
        task.pop_request()
    _task_stack.pop()


def test_a_plain_task_has_ids_too(eager_app: Any) -> None:
    @eager_app.task(name="unit.plain.found")
    def plain() -> Any:
        return found()

    assert plain.apply(task_id="one").get() == ("one", "one")


def test_what_is_carried_to_a_thread_runs_as_in_its_place(eager_app: Any) -> None:
    """Celery's request and task, and ContextVars; the thread's own stacks are as before."""

    @eager_app.task(name="unit.carried", bind=True)
    @concurrent(max_inputs=1)
    async def task(self: Any) -> Any:
        def there() -> Any:
            return self.request.id, current_task.name, current_input_id()

        def left() -> Any:
            return self.request.id, current_task._get_current_object()

        def fail() -> None:
            raise KeyError("there")

        loop = asyncio.get_running_loop()
        carried_there = await loop.run_in_executor(None, carried(there))
        with pytest.raises(KeyError):
            await loop.run_in_executor(None, carried(fail))
        return carried_there, await loop.run_in_executor(None, left)

    assert task.apply(task_id="one").get() == (("one", "unit.carried", "one"), (None, None))


def test_every_record_carries_the_id_of_its_input(
    record_factory: None, ids: tuple[str, str], caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    logs.install(app)
    logging.getLogger("of.a.library").warning("below an input")
    assert [record.__dict__["input_id"] for record in caplog.records] == ["input"]


def test_a_record_of_no_input_shows_a_dash(
    record_factory: None, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    logs.install(app)
    logs.install(app)  # again changes nothing
    logging.getLogger("of.a.library").warning("outside")
    assert [record.__dict__["input_id"] for record in caplog.records] == ["-"]


def test_a_record_factory_of_the_user_stays(record_factory: None, app: Any) -> None:
    class Mine(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Mine)
    logs.install(app)
    record = logging.getLogger().makeRecord("n", logging.INFO, "f", 1, "m", (), None)
    assert isinstance(record, Mine)
    assert record.__dict__["input_id"] == "-"


def test_the_default_formats_show_the_input(record_factory: None, app: Any) -> None:
    logs.install(app)
    assert "%(input_id)s" in app.conf.worker_log_format
    assert "%(input_id)s" in app.conf.worker_task_log_format
    assert app.log.format == app.conf.worker_log_format
    assert app.log.task_format == app.conf.worker_task_log_format


def test_a_format_of_the_user_stays(record_factory: None, app: Any) -> None:
    app.conf.worker_log_format = "%(message)s"
    app.conf.worker_task_log_format = "task: %(message)s"
    logs.install(app)
    assert app.conf.worker_log_format == app.log.format == "%(message)s"
    assert app.conf.worker_task_log_format == app.log.task_format == "task: %(message)s"
