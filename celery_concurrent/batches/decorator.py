"""The decorator ``batched``: a function of a list becomes a coroutine function of one element."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, NoReturn, Protocol, TypeVar, cast, overload
from weakref import ref

from celery_concurrent.batches.calls import Call
from celery_concurrent.batches.gathering import Batches, Rule
from celery_concurrent.batches.instances import PerInstance
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.marks import mark_of, without_keyword

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_MISSING: Final = cast(int, object())
_USAGE: Final = "write @batched(max_batch_size=64) above a function of one list"
#: What others call these parameters, and what it is here.
_ELSEWHERE: Final = {
    "wait_ms": "it is max_wait here, in seconds",
    "batch_wait_timeout_s": "it is max_wait here",
    "max_concurrent_batches": "one call runs at a time",
}
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
    came, and each caller gets its own result. On one event loop, as a node has it, one call runs
    at a time. A ``def`` is called on a thread of its own, always the same, an ``async def`` is
    awaited on the event loop. For a method this holds for each instance.

    The function returns an iterable with one result per element, in their order. A result that
    is an exception is raised for its element alone. What the function raises is raised for all
    elements of the call. An element whose caller is cancelled while it waits is left out; a call
    of an ``async def`` that nobody waits for any more is cancelled.

    In a concurrent node a call belongs to no input: :func:`current_input_id` is None in it, and
    its log records have no id.

    Args:
        misplaced: nothing goes here; there to tell what is wrong.
        max_batch_size: the most elements in one call, an int of 1 or more.
        max_wait: seconds, up to an hour, that the first element waits for others while no call
            runs. What has come while a call ran waits no longer than that call.
        unknown: nothing goes here; there to tell what is wrong.

    Raises:
        ConfigurationError: at definition time, naming the parameter, the value and the remedy.
    """
    if misplaced:
        raise without_keyword("@batched", misplaced[0], _USAGE)
    if unknown:
        name = next(iter(unknown))
        hint = _ELSEWHERE.get(name, "which takes max_batch_size and max_wait (seconds)")
        raise ConfigurationError(
            f"{name}={unknown[name]!r} is not a parameter of @batched: {hint}; {_USAGE}"
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
    call = Call(function, name=function.__name__, is_async=_is_async(function))
    batches = Batches(call, rule)
    return lambda: batches


def _of_instances(function: Callable[..., Any], rule: Rule) -> Callable[[Any], Batches]:
    name, is_async = function.__name__, _is_async(function)

    def make(instance: Any) -> Batches:
        # Whoever waits for a result has the instance; what runs for nobody may do without.
        own = ref(instance)
        call = Call(lambda elements: function(_there(own), elements), name=name, is_async=is_async)
        return Batches(call, rule)

    return PerInstance(make).of


def _there(instance: ref[Any]) -> Any:
    found = instance()
    if found is None:
        raise ReferenceError("nobody waits for this call any more")
    return found


def _is_async(function: Any) -> bool:
    """Whether calling it gives something to await: it is a coroutine function, or wraps one."""
    return any(inspect.iscoroutinefunction(one) for one in _wrapped(function))


def _wrapped(function: Any) -> Iterator[Any]:
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


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
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not _are_of_a_list(parameters, is_method=_is_method(name)):
        raise ConfigurationError(
            f"@batched cannot go on {name}{signature}, which must take one list without a default, "
            "or self and one list: for several values per input, make each element a tuple; "
            "bind=True does not go with it"
        )
    return parameters


def _is_method(qualified_name: str) -> bool:
    outer = qualified_name.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def _are_of_a_list(parameters: list[inspect.Parameter], *, is_method: bool) -> bool:
    if any(p.kind not in _POSITIONAL or p.default is not p.empty for p in parameters):
        return False
    if is_method and len(parameters) == 1:  # a static one
        return parameters[0].name not in {"self", "cls"}
    return len(parameters) == (2 if is_method else 1)
