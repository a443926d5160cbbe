"""What `@batched` may go on, and what becomes of it."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from celery_concurrent import ConfigurationError, batched, concurrent
from tests.services.calls import is_gone
from tests.services.waiting import wait_for


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
