"""Every way to make a Celery task, concurrent: bound, custom base, retried, pydantic, classes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from celery import Task
from celery.exceptions import Ignore

from celery_concurrent import ConfigurationError, Limits, concurrent, limits_of
from celery_concurrent.marks import mark_of


class FlakyError(Exception):
    """Goes away after a retry."""


class CountingTask(Task):
    """Counts the calls that go through it, as a base of users does for a session."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        type(self).calls += 1
        return super().__call__(*args, **kwargs)


class EarlyTask(Task):
    """Says itself when it acknowledges."""

    acks_late = False


@pytest.mark.parametrize("above", [False, True])
def test_a_bound_sync_task_knows_its_request(app: Any, above: bool) -> None:
    def whoami(self: Any, x: int) -> tuple[str, int]:
        return self.request.id, x

    decorate, make = concurrent(max_inputs=2), app.task(bind=True)
    task = decorate(make(whoami)) if above else make(decorate(whoami))
    assert task.apply((3,), task_id="one").get() == ("one", 3)


@pytest.mark.parametrize("above", [False, True])
def test_a_bound_async_task_knows_its_request(app: Any, above: bool) -> None:
    async def whoami(self: Any, x: int) -> tuple[str, str, int]:
        before = self.request.id
        await asyncio.sleep(0)
        return before, self.request.id, x

    decorate, make = concurrent(max_inputs=2), app.task(bind=True)
    task = decorate(make(whoami)) if above else make(decorate(whoami))
    assert task.apply((3,), task_id="one").get() == ("one", "one", 3)


def test_a_bound_task_called_directly_is_the_function(app: Any) -> None:
    @app.task(bind=True)
    @concurrent(max_inputs=2)
    async def bound(self: Any, x: int) -> tuple[Any, int]:
        return self.request.id, x

    assert asyncio.run(bound(3)) == (None, 3)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_custom_base_keeps_its_call(app: Any, is_async: bool) -> None:
    class Base(CountingTask):
        abstract = True

    def sync() -> int:
        return 1

    async def coroutine() -> int:
        return await asyncio.sleep(0, 1)

    task = app.task(base=Base)(concurrent(max_inputs=2)(coroutine if is_async else sync))
    assert task.apply().get() == 1
    assert type(task._get_current_object()).calls == 1


@pytest.mark.parametrize("above", [False, True])
def test_acks_late_is_on_unless_the_task_its_base_or_its_class_says_otherwise(
    app: Any, above: bool
) -> None:
    numbers = itertools.count()

    def made(**options: Any) -> Any:
        def function() -> None: ...

        decorate, make = concurrent(max_inputs=2), app.task(name=f"late{next(numbers)}", **options)
        task = decorate(make(function)) if above else make(decorate(function))
        app.finalize()
        return app.tasks[task.name]

    assert made().acks_late is True
    assert made(acks_late=False).acks_late is False
    assert made(acks_late=False).reject_on_worker_lost is True
    assert made(base=EarlyTask).acks_late is False
    assert made(base=EarlyTask, acks_late=True).acks_late is True
    assert made(reject_on_worker_lost=False).reject_on_worker_lost is False


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", ["unit.annotated", "*"])
def test_what_the_setting_task_annotations_says_of_late_acks_holds(
    app: Any, above: bool, name: str
) -> None:
    app.conf.task_annotations = {name: {"acks_late": False}}
    app.finalize()

    def function() -> None: ...

    decorate, make = concurrent(max_inputs=2), app.task(name="unit.annotated")
    task = decorate(make(function)) if above else make(decorate(function))
    assert task.acks_late is False
    assert task.reject_on_worker_lost is True


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("bind", [False, True])
def test_wrong_arguments_are_refused_where_they_are_published(
    app: Any, is_async: bool, above: bool, bind: bool
) -> None:
    async def wait(x: int, *, y: int = 0) -> None: ...
    async def wait_bound(self: Any, x: int, *, y: int = 0) -> None: ...
    def run(x: int, *, y: int = 0) -> None: ...
    def run_bound(self: Any, x: int, *, y: int = 0) -> None: ...

    function: Any = ((run, run_bound), (wait, wait_bound))[is_async][bind]
    decorate, make = concurrent(max_inputs=2), app.task(bind=bind)
    task = decorate(make(function)) if above else make(decorate(function))
    for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"z": 3})):
        with pytest.raises(TypeError, match="argument"):
            task.apply_async(args, kwargs)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_autoretry_for_retries_a_failure_and_passes_others(
    app: Any, is_async: bool, above: bool
) -> None:
    tries: list[int] = []

    def sync(self: Any, error: str) -> int:
        tries.append(self.request.retries)
        if error == "other":
            raise KeyError(error)
        if len(tries) < 3:
            raise FlakyError(error)
        return len(tries)

    async def coroutine(self: Any, error: str) -> int:
        await asyncio.sleep(0)
        return sync(self, error)

    decorate = concurrent(max_inputs=2)
    make = app.task(bind=True, autoretry_for=(FlakyError,), retry_backoff=False, max_retries=5)
    function = coroutine if is_async else sync
    task = decorate(make(function)) if above else make(decorate(function))
    assert task.apply(("flaky",)).get() == 3
    assert tries == [0, 1, 2]
    tries.clear()
    with pytest.raises(KeyError):
        task.apply(("other",)).get()
    assert tries == [0]


@pytest.mark.parametrize("is_async", [False, True])
def test_autoretry_for_gives_up_with_the_error(app: Any, is_async: bool) -> None:
    tries: list[int] = []

    def sync() -> None:
        tries.append(1)
        raise FlakyError("for ever")

    async def coroutine() -> None:
        await asyncio.sleep(0)
        sync()

    make = app.task(autoretry_for=(FlakyError,), retry_backoff=False, max_retries=2)
    task = make(concurrent(max_inputs=2)(coroutine if is_async else sync))
    with pytest.raises(FlakyError, match="for ever"):
        task.apply().get()
    assert len(tries) == 3


def test_ignore_passes_through_an_async_task(app: Any) -> None:
    @app.task
    @concurrent(max_inputs=2)
    async def ignored() -> None:
        raise Ignore

    assert ignored.apply().state == "IGNORED"


@pytest.mark.parametrize("is_async", [False, True])
def test_the_older_option_works_and_warns(app: Any, is_async: bool) -> None:
    def sync() -> int:
        return 1

    async def coroutine() -> int:
        return await asyncio.sleep(0, 1)

    app.finalize()
    make = app.task(allow_concurrent_inputs=6)
    message = r"allow_concurrent_inputs=6 of .* put @concurrent\(max_inputs=6\) on the function"
    with pytest.warns(DeprecationWarning, match=message):
        task = make(coroutine if is_async else sync)
    assert limits_of(task) == Limits(max_inputs=6)
    assert task.acks_late is True
    assert not hasattr(task, "allow_concurrent_inputs")
    assert task.apply().get() == 1


def test_the_warning_of_the_older_option_points_at_the_users_line(app: Any) -> None:
    app.finalize()
    with pytest.warns(DeprecationWarning, match="older spelling") as caught:

        @app.task(allow_concurrent_inputs=6)
        def old() -> None: ...

    assert caught[0].filename == __file__


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "3", None])
def test_a_bad_value_of_the_older_option_is_told_where_it_stands(app: Any, value: Any) -> None:
    message = rf"^allow_concurrent_inputs={value!r}: max_inputs={value!r} must"
    with pytest.raises(ConfigurationError, match=message):

        @app.task(allow_concurrent_inputs=value)
        def bad_value() -> None: ...


def test_a_bad_value_of_the_older_option_of_a_class_is_named_with_its_task(app: Any) -> None:
    class Old(Task):
        name = "unit.class.bad"
        allow_concurrent_inputs = 0

        def run(self) -> None: ...

    with (
        pytest.warns(DeprecationWarning, match="older spelling"),
        pytest.raises(ConfigurationError, match=r"^allow_concurrent_inputs=0 of unit\.class\.bad"),
    ):
        app.register_task(Old())


def test_the_older_option_beside_the_decorator_is_refused(app: Any) -> None:
    app.finalize()
    with (
        pytest.warns(DeprecationWarning, match="older spelling"),
        pytest.raises(ConfigurationError, match="two @concurrent on"),
    ):

        @app.task(allow_concurrent_inputs=2)
        @concurrent(max_inputs=2)
        def both() -> None: ...


@pytest.mark.parametrize("is_async", [False, True])
def test_pydantic_arguments_and_results_are_converted(app: Any, is_async: bool) -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("Point", x=(int, ...))

    def sync(point):  # type: ignore[no-untyped-def]  # its annotations are set below
        return model(x=point.x + 1)

    async def coroutine(point):  # type: ignore[no-untyped-def]  # likewise
        await asyncio.sleep(0)
        return model(x=point.x + 1)

    function: Any = coroutine if is_async else sync
    function.__annotations__ = {"point": model, "return": model}
    task = app.task(pydantic=True)(concurrent(max_inputs=2)(function))
    assert task.apply(({"x": 1},)).get() == {"x": 2}
    with pytest.raises(pydantic.ValidationError):
        task.apply(({"x": "no number"},)).get()


def test_a_class_based_task_may_carry_the_mark_on_its_run(app: Any) -> None:
    class Add(Task):
        name = "unit.class.add"

        @concurrent(max_inputs=5)
        async def run(self, x: int, y: int) -> tuple[Any, int]:
            await asyncio.sleep(0)
            return self.request.id, x + y

    task = app.register_task(Add())
    assert limits_of(app.tasks["unit.class.add"]) == Limits(max_inputs=5)
    assert task.acks_late is True
    assert task.apply((1, 2), task_id="one").get() == ("one", 3)
    assert asyncio.run(task(1, 2)) == (None, 3)


def test_the_class_of_a_class_based_task_may_be_decorated(app: Any) -> None:
    @concurrent(max_inputs=5)
    class Above(Task):
        name = "unit.class.above"

        async def run(self, x: int) -> int:
            return await asyncio.sleep(0, x)

    task = app.register_task(Above())
    assert limits_of(task) == Limits(max_inputs=5)
    assert task.apply((3,)).get() == 3


def test_a_class_based_task_without_a_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Bare needs its method run\(\): put it on"):

        @concurrent(max_inputs=5)
        class Bare(Task): ...


def test_the_instance_of_a_class_based_task_may_be_decorated(app: Any) -> None:
    class Early(Task):
        name = "unit.class.early"
        acks_late = False

        def run(self, x: int) -> int:
            return x

    task = concurrent(max_inputs=5)(app.register_task(Early()))
    assert limits_of(task) == Limits(max_inputs=5)
    assert task.acks_late is False
    assert task.reject_on_worker_lost is True
    assert task.apply((3,)).get() == 3


def test_a_class_based_task_may_use_the_older_option(app: Any) -> None:
    class Old(Task):
        name = "unit.class.old"
        allow_concurrent_inputs = 4

        async def run(self) -> int:
            return await asyncio.sleep(0, 1)

    with pytest.warns(DeprecationWarning, match="allow_concurrent_inputs=4 of unit.class.old"):
        task = app.register_task(Old())
    assert limits_of(task) == Limits(max_inputs=4)
    assert task.apply().get() == 1


def test_one_function_may_be_two_tasks_of_one_limit_each(app: Any) -> None:
    @concurrent(max_inputs=2)
    async def both(self: Any) -> str:
        await asyncio.sleep(0)
        return str(self.name)

    first = app.task(bind=True, name="unit.first")(both)
    second = app.task(bind=True, name="unit.second")(both)
    assert [first.apply().get(), second.apply().get()] == ["unit.first", "unit.second"]
    assert mark_of(first) is mark_of(second)


def test_a_function_of_an_app_that_is_made_later_is_known_to_it(app: Any) -> None:
    from celery import Celery, shared_task

    app.finalize()

    @concurrent(max_inputs=2)
    @shared_task(name="unit.shared.later")
    async def later() -> int:
        return await asyncio.sleep(0, 1)

    second = Celery("second", set_as_current=False)
    second.finalize()
    for each in (app, second):
        task = each.tasks["unit.shared.later"]
        assert limits_of(task) == Limits(max_inputs=2)
        assert task.apply().get() == 1
    second.close()
