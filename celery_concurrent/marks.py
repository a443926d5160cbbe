"""The marks that the decorators leave on a function, and that its task then carries."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.limits import Limits

#: The attribute of functions, classes and tasks that holds the mark.
MARK = "__concurrent__"
#: The attribute that holds what ``@scaling`` said.
SCALING = "__scaling__"
#: The attribute of a class of which a service was made.
SERVICE = "__service__"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mark:
    """What the decorator knows of a task.

    Args:
        limits: the slots.
        group: name of what shares these slots: a service, or None for the task itself.
        is_async: whether the user's function is ``async def``.
    """

    limits: Limits
    group: str | None = None
    is_async: bool = False

    def group_of(self, task: Any) -> str:
        """The name of what shares the slots that inputs of this task, which has the mark, take."""
        return self.group or str(task.name)


def mark_of(target: object) -> Mark | None:
    """The mark of a function, class or task; None when it has none."""
    mark = getattr(target, MARK, None)
    return mark if isinstance(mark, Mark) else None


def limits_of(task: object) -> Limits | None:
    """The limits of a task, or None when it is not a concurrent one."""
    mark = mark_of(task)
    return None if mark is None else mark.limits


def mark_class(cls: type, limits: Limits) -> None:
    """Mark the class of a service.

    Raises:
        ConfigurationError: it carries a mark already (one that it inherits does not count), or
            the service was made without one.
    """
    if MARK in vars(cls):
        raise stacked(cls.__qualname__)
    if SERVICE in vars(cls):
        raise ConfigurationError(
            f"@concurrent stands above @service on {cls.__qualname__}, whose slots are given by "
            "then: put it below"
        )
    setattr(cls, MARK, Mark(limits=limits))


def mark_function(function: object, limits: Limits, *, group: str | None = None) -> Mark:
    """Mark a plain or async function.

    Raises:
        ConfigurationError: it is no function, is a generator, or carries a mark already.
    """
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"@concurrent cannot go on {function!r}, a {type(function).__name__}: put it on a "
            "function, a task, or the class of a service"
        )
    name = function.__qualname__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"@concurrent cannot go on the generator {name}: a task returns one result; "
            "return a list instead of yielding"
        )
    if mark_of(function) is not None:
        raise stacked(name)
    mark = Mark(limits=limits, group=group, is_async=is_async(function))
    setattr(cast(Any, function), MARK, mark)
    return mark


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine, also below ``functools.wraps``."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def stacked(name: str) -> ConfigurationError:
    """The error for a second decorator on the same thing."""
    return ConfigurationError(
        f"two @concurrent on {name}: keep one, with the max_inputs that you want"
    )


def without_keyword(decorator: str, value: object, usage: str) -> ConfigurationError:
    """The error for a decorator without its parentheses, or with a parameter by its position."""
    return ConfigurationError(
        f"{decorator} got {value!r} without a keyword: it needs its parentheses and its "
        f"parameters by name; {usage}"
    )


def mark_scaling(target: Any, values: Mapping[str, Any]) -> None:
    """Mark a function, or the class of a service, with the knobs of its fleet.

    Raises:
        ConfigurationError: it is neither, or carries knobs already (a class' inherited ones do
            not count).
    """
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        raise ConfigurationError(
            f"@scaling cannot go on {target!r}, a {type(target).__name__}: put it on a function, "
            "a task, or the class of a service"
        )
    mark = mark_of(target)
    if mark is not None and mark.group is not None:
        raise scaling_of_method(mark.group)
    if SCALING in vars(target):
        raise stacked_scaling(target.__qualname__)
    setattr(target, SCALING, values)


def scaling_of(target: Any) -> Mapping[str, Any] | None:
    """What ``@scaling`` said of a function, a class or a task; None when it has none.

    A task has it by its function, perhaps below other decorators: the mark may have come when
    the task was there already.
    """
    own: Mapping[str, Any] | None = getattr(target, SCALING, None)
    if own is not None or inspect.isclass(target):
        return own
    run = getattr(target, "_orig_run", None) or getattr(target, "run", target)
    marked = inspect.unwrap(getattr(run, "__func__", run), stop=lambda f: hasattr(f, SCALING))
    return getattr(marked, SCALING, None)


def scaling_of_method(name: str) -> ConfigurationError:
    """The error for ``@scaling`` on a method of a service."""
    return ConfigurationError(
        f"@scaling on a method of {name}: a node serves all methods of a service; put one "
        "@scaling on the class"
    )


def stacked_scaling(name: str) -> ConfigurationError:
    """The error for a second ``@scaling`` on the same thing."""
    return ConfigurationError(f"two @scaling on {name}: keep one, with all that you want")
