"""The decorator on functions and on both sides of ``@app.task``; every misuse of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from celery import shared_task

from celery_concurrent import ConfigurationError, Limits, concurrent, limits_of, method, service
from celery_concurrent.marks import mark_of

loose: Any = concurrent


def add(x: int, y: int) -> int:
    return x + y


def refused(message: str) -> Any:
    return pytest.raises(ConfigurationError, match=re.escape(message))


def test_the_function_itself_is_what_it_was() -> None:
    def twice(x: int) -> int:
        return 2 * x

    assert concurrent(max_inputs=3)(twice) is twice
    assert twice(2) == 4
    assert limits_of(twice) == Limits(max_inputs=3)


def test_without_parentheses_it_says_so() -> None:
    with refused("without a keyword: it needs its parentheses") as caught:
        loose(add)
    assert "add" in str(caught.value)
    assert "@concurrent(max_inputs=10" in str(caught.value)


def test_a_positional_number_is_refused_with_its_value() -> None:
    with refused("@concurrent got 10 without a keyword"):
        loose(10)


def test_without_max_inputs_it_says_what_to_write() -> None:
    with refused("@concurrent needs max_inputs; write @concurrent(max_inputs=10)"):
        loose()
    with refused("@concurrent needs max_inputs"):
        loose(target_inputs=3)


def test_an_unknown_parameter_is_named_with_its_value_and_the_known_ones() -> None:
    with refused("max_input=10 is not a parameter of @concurrent, which takes max_inputs and"):
        loose(max_input=10)


def test_a_knob_of_the_fleet_is_sent_to_scaling() -> None:
    with refused("it is a knob of the fleet; write @scaling(gpus=1) above it"):
        loose(max_inputs=10, gpus=1)


@pytest.mark.parametrize("value", [True, 2.0, "2", None, 0, -1])
def test_a_bad_value_is_refused_before_anything_is_decorated(value: Any) -> None:
    with refused(f"max_inputs={value!r} must be"):
        loose(max_inputs=value)


@pytest.mark.parametrize("value", [True, 2.0, "2", 0, 11])
def test_a_bad_target_is_refused_before_anything_is_decorated(value: Any) -> None:
    with refused(f"target_inputs={value!r} must"):
        loose(max_inputs=10, target_inputs=value)


def test_two_on_one_function_are_refused() -> None:
    def twice() -> None: ...

    concurrent(max_inputs=1)(twice)
    with refused("twice: keep one, with the max_inputs that you want"):
        concurrent(max_inputs=2)(twice)


def test_two_on_both_sides_of_the_task_are_refused(app: Any) -> None:
    with refused("two @concurrent on"):

        @concurrent(max_inputs=2)
        @app.task
        @concurrent(max_inputs=1)
        def stacked() -> None: ...


def test_two_above_a_task_are_refused(app: Any) -> None:
    with refused("two @concurrent on"):

        @concurrent(max_inputs=2)
        @concurrent(max_inputs=1)
        @app.task
        def stacked() -> None: ...


def test_two_on_a_made_task_are_refused(app: Any) -> None:
    def made() -> None: ...

    app.finalize()
    task = concurrent(max_inputs=1)(app.task(made))
    with refused("two @concurrent on"):
        concurrent(max_inputs=2)(task)


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_is_refused(function: Callable[..., Any]) -> None:
    with refused(f"cannot go on the generator {function.__name__}: a task returns one result"):
        concurrent(max_inputs=2)(function)


@pytest.mark.parametrize("thing", [3, "add", None, len, [].append])
def test_what_is_no_function_is_refused_with_its_type(thing: Any) -> None:
    with refused(f"cannot go on {thing!r}, a {type(thing).__name__}: put it on a function"):
        concurrent(max_inputs=2)(thing)


def test_on_a_method_of_a_service_it_is_refused(app: Any) -> None:
    with refused("the methods of a service share its slots; put one @concurrent on the class"):

        @service(app)
        @concurrent(max_inputs=2)
        class Above:
            @concurrent(max_inputs=1)
            def plain(self) -> None: ...

            @method
            def run(self) -> None: ...

    with refused("Below.run: the methods of a service share its slots"):

        @service(app)
        class Below:
            @method
            @concurrent(max_inputs=1)
            def run(self) -> None: ...


def test_above_a_method_of_a_service_it_is_refused(app: Any) -> None:
    with refused("@concurrent cannot go on"):

        class Above:
            @concurrent(max_inputs=1)
            @method
            def run(self) -> None: ...


def test_two_on_a_class_are_refused_and_an_inherited_one_is_not(app: Any) -> None:
    with refused("two @concurrent on"):

        @concurrent(max_inputs=2)
        @concurrent(max_inputs=1)
        class Twice: ...

    @concurrent(max_inputs=2)
    class Base: ...

    @concurrent(max_inputs=5)
    class Derived(Base): ...

    assert limits_of(Derived) == Limits(max_inputs=5)
    assert limits_of(Base) == Limits(max_inputs=2)


@pytest.mark.parametrize("finalized", [False, True])
@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("kind", ["app", "shared"])
def test_both_sides_of_both_task_decorators_mean_the_same(
    app: Any, kind: str, above: bool, finalized: bool
) -> None:
    make = app.task if kind == "app" else shared_task
    name = f"sides.{kind}.{above}.{finalized}"
    if finalized:
        app.finalize()

    def thrice(x: int) -> int:
        return 3 * x

    if above:
        task = concurrent(max_inputs=4, target_inputs=3)(make(name=name)(thrice))
    else:
        task = make(name=name)(concurrent(max_inputs=4, target_inputs=3)(thrice))
    app.finalize()
    registered = app.tasks[name]
    assert limits_of(registered) == Limits(max_inputs=4, target_inputs=3)
    assert registered.acks_late is True
    assert registered.reject_on_worker_lost is True
    assert task(4) == registered(4) == 12


@pytest.mark.parametrize("above", [False, True])
def test_an_async_task_called_directly_gives_its_coroutine(app: Any, above: bool) -> None:
    async def twice(x: int) -> int:
        return 2 * await asyncio.sleep(0, x)

    decorate = concurrent(max_inputs=4)
    task = decorate(app.task(twice)) if above else app.task(decorate(twice))
    assert asyncio.run(task(4)) == 8
    mark = mark_of(app.tasks[task.name])
    assert mark is not None
    assert mark.is_async


def test_the_app_is_not_configured_by_decorating_its_lazy_tasks(app: Any) -> None:
    def local() -> None: ...

    async def local_async() -> None: ...

    concurrent(max_inputs=4)(app.task(local))
    concurrent(max_inputs=4)(app.task(local_async))
    assert not app.configured
    assert not app.finalized


def test_tasks_without_it_are_left_alone(app: Any) -> None:
    task = app.task(add)
    assert limits_of(task) is None
    assert not task.acks_late
    assert task(1, 2) == 3
