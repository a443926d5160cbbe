"""The decorator ``batched``: a function of a list becomes a coroutine function of one element."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, NoReturn, Protocol, TypeVar, cast, overload

from celery_concurrent.batches import Batches, Rule
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.marks import mark_of

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_MISSING: Final = cast(int, object())
_USAGE: Final = "write @batched(max_batch_size=64) above a function of one list"
_POSITIONAL: Final = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
}


class Decorate(Protocol):
    """What ``batched`` gives, for functions of a list and for methods of one."""

    @overload
    def __call__(
        self, function: Callable[[list[T]], Awaitable[Iterable[R]]], /
    ) -> Callable[[T], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[[list[T]], Iterable[R]], /
    ) -> Callable[[T], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[[S, list[T]], Awaitable[Iterable[R]]], /
    ) -> Callable[[S, T], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[[S, list[T]], Iterable[R]], /
    ) -> Callable[[S, T], Coroutine[Any, Any, R]]: ...


def batched(
    *misplaced: NoReturn,
    max_batch_size: int = _MISSING,
    max_wait: float = 0.0,
    **unknown: NoReturn,
) -> Decorate:
    """Turn a function of a list into a coroutine function of one element.

    Elements that wait at the same time are handed over in one call, in the order in which they
    came, and each caller gets its own result. One call runs at a time: a ``def`` always on the
    same thread, an ``async def`` on the event loop. For a method this holds for each instance.

    The function returns an iterable with one result per element, in their order. A result that
    is an exception is raised for its element alone. What the function raises is raised for all
    elements of the call. An element whose caller is cancelled while it waits is left out.

    A call belongs to no input: :func:`current_input_id` is None in it, and its log records have
    no id.

    Args:
        misplaced: nothing goes here; there to tell what is wrong.
        max_batch_size: the most elements in one call, an int of 1 or more.
        max_wait: seconds that the first element waits for others while no call runs, 0 or more.
            What has come while a call ran waits no longer than that call.
        unknown: nothing goes here; there to tell what is wrong.

    Raises:
        ConfigurationError: at definition time, naming the parameter, the value and the remedy.
    """
    if misplaced:
        raise ConfigurationError(
            f"@batched got {misplaced[0]!r} without a keyword: it needs its parentheses and its "
            f"parameters by name; {_USAGE}"
        )
    if unknown:
        name = next(iter(unknown))
        raise ConfigurationError(
            f"{name}={unknown[name]!r} is not a parameter of @batched, which takes "
            f"max_batch_size and max_wait (seconds); {_USAGE}"
        )
    if max_batch_size is _MISSING:
        raise ConfigurationError(f"@batched needs max_batch_size; {_USAGE}")
    rule = Rule(max_batch_size=max_batch_size, max_wait=max_wait)
    return cast(Decorate, lambda function: _decorate(function, rule))


def _decorate(function: Any, rule: Rule) -> Callable[..., Any]:
    parameters = _parameters(function)
    *before, last = parameters
    # An element's type is not the list's.
    shown = inspect.Signature([*before, last.replace(annotation=inspect.Parameter.empty)])
    find = _of_instances(function, rule) if before else _of_all(function, rule)

    async def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != len(parameters):
            args = shown.bind(*args, **kwargs).args
        *instance, element = args
        return await find(*instance).result_of(element)

    functools.update_wrapper(call, function)
    # Not what it wraps: that takes a list, and may be no coroutine function.
    del cast(Any, call).__wrapped__
    cast(Any, call).__signature__ = shown
    call.__annotations__ = {}
    return call


def _of_all(function: Callable[..., Any], rule: Rule) -> Callable[[], Batches]:
    batches = Batches(function, rule, name=function.__name__)
    return lambda: batches


def _of_instances(function: Callable[..., Any], rule: Rule) -> Callable[[Any], Batches]:
    """For a method: they are kept in the instance, and go with it."""
    name = f"_batches_of_{function.__name__}"

    def find(instance: Any) -> Batches:
        kept = getattr(instance, "__dict__", None)
        if kept is None:
            raise ConfigurationError(
                f"@batched on {function.__qualname__} keeps something in each instance, and "
                f"{type(instance).__name__} has __slots__ without __dict__: add it to them"
            )
        found: Batches | None = kept.get(name)
        if found is None:
            made = Batches(functools.partial(function, instance), rule, name=function.__name__)
            found = kept.setdefault(name, made)
        return found

    return find


def _parameters(function: Any) -> list[inspect.Parameter]:
    """Of a function of one list, or of a method of one.

    Raises:
        ConfigurationError: it is neither.
    """
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"@batched cannot go on {function!r}, a {type(function).__name__}: put it on a "
            "function or a method, below @app.task, @concurrent and @method"
        )
    name = function.__qualname__
    if mark_of(function) is not None:
        raise ConfigurationError(f"@batched stands above @concurrent on {name}: put it below")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"@batched cannot go on the generator {name}: return a list instead of yielding"
        )
    parameters = list(inspect.signature(function).parameters.values())
    outer = name.rpartition(".")[0]
    is_method = bool(outer) and not outer.endswith("<locals>")
    most = 2 if is_method else 1
    if not 1 <= len(parameters) <= most or {p.kind for p in parameters} - _POSITIONAL:
        raise ConfigurationError(
            f"@batched cannot go on {name}{inspect.signature(function)}, which must take one list, "
            "or self and one list: for several values per input, make each element a tuple"
        )
    return parameters
