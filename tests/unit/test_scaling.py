"""``@scaling`` on functions, tasks and services; every misuse of it."""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

import pytest
from celery import Task, shared_task

from celery_concurrent import ConfigurationError, concurrent, method, scaling, service
from celery_concurrent.marks import scaling_of

loose: Any = scaling


def refused(message: str) -> Any:
    return pytest.raises(ConfigurationError, match=re.escape(message))


def add(x: int, y: int) -> int:
    return x + y


def test_the_function_itself_is_what_it_was() -> None:
    def twice(x: int) -> int:
        return 2 * x

    assert scaling(max_nodes=3)(twice) is twice
    assert twice(2) == 4
    assert scaling_of(twice) == {"max_nodes": 3}


def test_what_is_left_out_is_not_said() -> None:
    def twice() -> None: ...

    scaling(min_nodes=None, price=2)(twice)
    assert scaling_of(twice) == {"price": 2}


def test_without_parentheses_it_says_so() -> None:
    with refused("without a keyword: it needs its parentheses") as caught:
        loose(add)
    assert "add" in str(caught.value)
    assert "@scaling(min_nodes=1, max_nodes=8)" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_node": 3}, "max_node=3 is no knob of a fleet; did you mean max_nodes?"),
        ({"max_nodes": "3"}, "max_nodes='3' must be an int, not str"),
        ({"gpus": True}, "gpus=True must be an int, not bool"),
        ({"min_nodes": 3, "max_nodes": 2}, "min_nodes=3 must not exceed max_nodes=2"),
        ({"nodes_per_gpu": 2}, "nodes_per_gpu=2 needs gpus"),
        ({"policy": "greedy"}, "policy='greedy' must be"),
    ],
)
def test_misuse_is_refused_before_anything_is_decorated(given: Any, told: str) -> None:
    with refused(told):
        loose(**given)


def test_an_older_name_works_and_warns_where_it_is_written() -> None:
    def twice() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loose(keep_warm=2, container_idle_timeout=30)(twice)
    assert scaling_of(twice) == {"min_nodes": 2, "scaledown_window": 30}
    assert [warning.filename for warning in caught] == [__file__, __file__]
    assert {warning.category for warning in caught} == {DeprecationWarning}


@pytest.mark.parametrize("thing", [3, "add", None, len, [].append])
def test_what_is_no_function_is_refused_with_its_type(thing: Any) -> None:
    with refused(f"@scaling cannot go on {thing!r}, a {type(thing).__name__}: put it on a"):
        scaling(max_nodes=2)(thing)


def test_two_on_one_function_are_refused() -> None:
    def twice() -> None: ...

    scaling(max_nodes=1)(twice)
    with refused("twice: keep one, with all that you want"):
        scaling(gpus=1)(twice)


@pytest.mark.parametrize("finalized", [False, True])
def test_two_on_both_sides_of_the_task_are_refused(app: Any, finalized: bool) -> None:
    if finalized:
        app.finalize()
    with refused("two @scaling on"):

        @scaling(max_nodes=2)
        @app.task
        @scaling(gpus=1)
        def stacked() -> None: ...


def test_two_on_a_made_task_are_refused(app: Any) -> None:
    def made() -> None: ...

    app.finalize()
    task = scaling(max_nodes=1)(app.task(made))
    with refused("two @scaling on"):
        scaling(max_nodes=2)(task)


@pytest.mark.parametrize("finalized", [False, True])
@pytest.mark.parametrize("order", ["task above", "task between", "task below"])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("kind", ["app", "shared"])
def test_any_order_of_the_decorators_means_the_same(
    app: Any, kind: str, order: str, flipped: bool, finalized: bool
) -> None:
    name = f"order.{kind}.{order}.{flipped}.{finalized}"
    make = (app.task if kind == "app" else shared_task)(name=name)
    if finalized:
        app.finalize()

    def thrice(x: int) -> int:
        return 3 * x

    marks = [concurrent(max_inputs=4), scaling(max_nodes=3)]
    if flipped:
        marks.reverse()
    places: dict[str, Any] = {
        "task above": [*marks, make],
        "task between": [marks[0], make, marks[1]],
        "task below": [make, *marks],
    }
    decorated: Any = thrice
    for decorate in places[order]:
        decorated = decorate(decorated)
    app.finalize()
    assert scaling_of(app.tasks[name]) == {"max_nodes": 3}
    assert decorated(4) == app.tasks[name](4) == 12


@pytest.mark.parametrize("options", [{}, {"bind": True}, {"autoretry_for": (KeyError,)}])
@pytest.mark.parametrize("above", [False, True])
def test_a_task_has_it_below_what_is_wrapped_around_its_function(
    app: Any, above: bool, options: Any
) -> None:
    def wrapped(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    async def fetch(*args: Any) -> None: ...

    mark: Any = scaling(max_nodes=3)
    bare: Any = concurrent(max_inputs=2)(fetch)
    function = mark(wrapped(bare)) if above else wrapped(mark(bare))
    task = app.task(name="below", **options)(function)
    app.finalize()
    assert scaling_of(app.tasks["below"]) == scaling_of(task) == {"max_nodes": 3}


def test_a_class_based_task_has_it_by_its_class_or_its_run(app: Any) -> None:
    @scaling(max_nodes=3)
    class ByClass(Task):
        name = "by.class"

        def run(self) -> None: ...

    class ByRun(Task):
        name = "by.run"

        @scaling(max_nodes=4)
        @concurrent(max_inputs=2)
        def run(self) -> None: ...

    assert scaling_of(app.register_task(ByClass())) == {"max_nodes": 3}
    assert scaling_of(app.register_task(ByRun())) == {"max_nodes": 4}


def test_the_app_is_not_configured_by_decorating_its_lazy_tasks(app: Any) -> None:
    def local() -> None: ...

    scaling(max_nodes=4)(app.task(local))
    assert not app.configured
    assert not app.finalized


def test_a_task_without_it_has_none(app: Any) -> None:
    assert scaling_of(app.task(add)) is None


def test_a_derived_class_may_say_otherwise_and_its_base_stays() -> None:
    @scaling(max_nodes=2)
    class Base: ...

    @scaling(max_nodes=5)
    class Derived(Base): ...

    class Plain(Base): ...

    assert [scaling_of(cls)["max_nodes"] for cls in (Base, Derived, Plain)] == [2, 5, 2]  # type: ignore[index]  # it is there


def test_on_a_method_of_a_service_it_is_refused(app: Any) -> None:
    with refused("a node serves all methods of a service; put one @scaling on the class"):

        @service(app)
        class Below:
            @method
            @scaling(max_nodes=2)
            def run(self) -> None: ...

    with refused("@scaling cannot go on"):

        class Above:
            @scaling(max_nodes=1)
            @method
            def run(self) -> None: ...


@pytest.mark.parametrize("finalized", [False, True])
def test_on_the_task_of_a_services_method_it_is_refused(app: Any, finalized: bool) -> None:
    @service(app, name="model")
    class Model:
        @method
        def run(self) -> None: ...

    if finalized:
        app.finalize()
    with refused("@scaling on a method of model: a node serves all methods"):
        scaling(max_nodes=1)(Model.run)
