"""Services outside of a node: their definition, and their use in eager mode."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celery_concurrent import (
    ConfigurationError,
    Limits,
    ServiceError,
    concurrent,
    enter,
    exit,
    limits_of,
    method,
    service,
)
from celery_concurrent.marks import mark_of
from celery_concurrent.services import services_of

loose_enter: Any = enter
loose_method: Any = method
loose_service: Any = service


def test_methods_become_tasks_that_share_the_slots_of_the_service(app: Any) -> None:
    @service(app, queue="embed", name="embed", acks_late=False)
    @concurrent(max_inputs=4, target_inputs=2)
    class Embed:
        @method
        def one(self, text: str) -> str:
            return text.upper()

        @method(queue="other", max_retries=7)
        async def two(self, text: str) -> str:
            return text.lower()

    assert Embed.one.name == "embed.one"
    assert Embed.one.queue == "embed"
    assert Embed.one.acks_late is False
    assert (Embed.two.queue, Embed.two.max_retries) == ("other", 7)
    for task in (Embed.one, Embed.two):
        assert limits_of(task) == Limits(max_inputs=4, target_inputs=2)
        mark = mark_of(task)
        assert mark is not None
        assert mark.group == "embed"
    assert [found.name for found in services_of(app)] == ["embed"]


def test_without_limits_inputs_run_one_by_one(app: Any) -> None:
    @service(app)
    class Plain:
        @method
        def run(self) -> None: ...

    assert limits_of(Plain.run) == Limits(max_inputs=1)
    assert Plain.run.name.endswith("Plain.run")


def test_the_methods_of_an_instance_are_plain(app: Any) -> None:
    @service(app)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        @method
        def up(self, by: int) -> int:
            self.count += by
            return self.count

    mine = Counter()
    assert [mine.up(1), mine.up(2)] == [1, 3]


def test_in_eager_mode_the_instance_is_loaded_once_and_used_by_all_methods(eager_app: Any) -> None:
    told: list[str] = []

    @service(eager_app)
    @concurrent(max_inputs=2)
    class Model:
        @enter
        def load(self) -> None:
            told.append("enter")

        @enter
        async def connect(self) -> None:
            await asyncio.sleep(0)
            told.append("enter async")

        @method
        def sync(self, x: int) -> tuple[int, int]:
            return id(self), x

        @method
        async def coroutine(self, x: int) -> tuple[int, int]:
            await asyncio.sleep(0)
            return id(self), x

        @exit
        async def close(self) -> None:
            told.append("exit")

    assert told == []
    first = Model.sync.delay(1).get()
    second = Model.coroutine.delay(2).get()
    assert told == ["enter", "enter async"]
    assert first[0] == second[0]
    assert (first[1], second[1]) == (1, 2)


def test_a_method_checks_its_arguments_without_self(app: Any) -> None:
    @service(app)
    class Strict:
        @method
        def run(self, x: int) -> int:
            return x

    with pytest.raises(TypeError):
        Strict.run.delay()
    with pytest.raises(TypeError):
        Strict.run.delay(1, 2)


def test_a_service_that_cannot_be_loaded_fails_its_inputs_with_the_reason(eager_app: Any) -> None:
    @service(eager_app, name="broken")
    class Broken:
        @enter
        def load(self) -> None:
            raise OSError("no weights")

        @method
        def run(self) -> None: ...

    with pytest.raises(ServiceError, match=r"service broken could not be loaded.*no weights"):
        Broken.run.delay().get()


def test_hooks_and_methods_are_inherited_and_replaced(eager_app: Any) -> None:
    told: list[str] = []

    class Base:
        @enter
        def load(self) -> None:
            told.append("base")

        @method
        def run(self) -> str:
            return "base"

        @method
        def other(self) -> str:
            return "other"

    @service(eager_app, name="derived")
    class Derived(Base):
        @enter
        def load(self) -> None:
            told.append("derived")

        @method
        def run(self) -> str:
            return "derived"

    assert Derived.run.delay().get() == "derived"
    assert Derived.other.delay().get() == "other"
    assert told == ["derived"]


def test_two_services_of_one_base_keep_their_own_tasks(eager_app: Any) -> None:
    class Base:
        @method
        def run(self) -> str:
            return type(self).__name__

    @service(eager_app, name="first")
    class First(Base): ...

    @service(eager_app, name="second")
    class Second(Base): ...

    assert First.run.name == "first.run"
    assert Second.run.name == "second.run"
    assert First.run.delay().get() == "First"
    assert Second.run.delay().get() == "Second"


def test_misuse_of_the_pattern_is_told(app: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no task: mark at least one method"):

        @service(app)
        class Empty: ...

    with pytest.raises(ConfigurationError, match=r"above @service on .*Above, .*: put it below"):

        @concurrent(max_inputs=2)
        @service(app)
        class Above:
            @method
            def run(self) -> None: ...

    with pytest.raises(ConfigurationError, match="@service goes on a class, not on 3"):
        loose_service(app)(3)
    with pytest.raises(ConfigurationError, match=r"needs the Celery app, not <class 'int'>"):
        loose_service(int)  # without its parentheses
    with pytest.raises(ConfigurationError, match="@enter cannot go on 3, a int: write @enter"):
        loose_enter(3)
    with pytest.raises(ConfigurationError, match="@method cannot go on 3, a int: put it on"):
        loose_method(3)


def test_a_method_whose_class_is_no_service_says_what_is_missing() -> None:
    class Forgotten:
        @method
        def run(self) -> None: ...

    with pytest.raises(AttributeError, match=r"Forgotten.run> .* put @service\(app, queue="):
        Forgotten.run.delay()
    with pytest.raises(ConfigurationError, match=r"cannot go on <@method .*Forgotten.run>"):
        concurrent(max_inputs=2)(vars(Forgotten)["run"])
