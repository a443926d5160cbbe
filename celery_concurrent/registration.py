"""Where the decorator meets Celery's tasks: the one place that hooks their creation.

Celery has no signal for a task's creation, and ``autoretry_for`` wraps ``run`` in a sync
function the moment a task is made. An ``async def`` must be awaited *inside* of that wrapper,
or a failure of it would never be retried. So :meth:`Celery._task_from_fun` (5.6 and 5.7,
there since 3.1; ``@app.task`` and ``@shared_task`` both end in it) is wrapped once: it sees
the marked function first and hands Celery one that can be called synchronously.

Tasks that are not marked pass through it untouched.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from celery import Celery, Task
from celery._state import _get_active_apps
from celery.app.annotations import resolve_all
from celery.local import PromiseProxy, Proxy

from celery_concurrent import sent
from celery_concurrent.bridge import driven
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.limits import Limits
from celery_concurrent.marks import (
    MARK,
    SCALING,
    Mark,
    is_async,
    mark_function,
    mark_of,
    mark_scaling,
    scaling_of,
    scaling_of_method,
    stacked,
    stacked_scaling,
)

#: Options that a concurrent task has unless it says otherwise.
LATE = ("acks_late", "reject_on_worker_lost")

_GIVEN = "__given_options__"
_LEGACY = "allow_concurrent_inputs"


def is_task(target: object) -> bool:
    """Whether this is a task or a proxy of one, without evaluating the proxy."""
    return type(target) in (PromiseProxy, Proxy) or isinstance(target, Task)


def is_task_class(target: object) -> TypeGuard[type[Task]]:
    """Whether this is the class of a class-based task."""
    return inspect.isclass(target) and issubclass(target, Task)


def mark_task_class(cls: type[Task], limits: Limits) -> None:
    """Mark the class of a class-based task, by its ``run``.

    Raises:
        ConfigurationError: it has none of its own, or that carries a mark already.
    """
    run = vars(cls).get("run")
    if run is None:
        raise ConfigurationError(
            f"@concurrent on the task {cls.__qualname__} needs its method run(): put it on the "
            "class that has one"
        )
    mark_function(run, limits)


def mark_task(target: object, limits: Limits) -> None:
    """Mark what ``@app.task`` or ``@shared_task`` returned.

    A task that is not made yet gets the mark by its function; one that is made, at once.

    Raises:
        ConfigurationError: the function below carries a mark already.
    """
    if type(target) not in (PromiseProxy, Proxy):
        _mark_made(target, limits)
        return
    function = _function_below(target)
    if function is None:
        _mark_made(cast(Any, target)._get_current_object(), limits)
        return
    mark = mark_function(function, limits)
    for app in _get_active_apps():
        if app.finalized:
            for task in list(app._tasks.values()):
                if mark_of(task) is None and _is_made_from(task, function):
                    _adopt(task, mark)


def mark_task_scaling(target: object, values: Mapping[str, Any]) -> None:
    """Leave knobs on what ``@app.task`` or ``@shared_task`` returned, by its function if it can.

    Raises:
        ConfigurationError: it carries some already, or is a method of a service.
    """
    function = _function_below(target) if type(target) in (PromiseProxy, Proxy) else None
    if function is not None:
        mark_scaling(function, values)
        return
    task: Any = target  # a proxy stands for it here, too
    mark = mark_of(task)
    if mark is not None and mark.group is not None:
        raise scaling_of_method(mark.group)
    if scaling_of(task) is not None:
        raise stacked_scaling(task.name)
    setattr(task, SCALING, values)


def _mark_made(task: Any, limits: Limits) -> None:
    if mark_of(task) is not None:
        raise stacked(task.name)
    run = getattr(task, "_orig_run", task.run)
    _adopt(task, Mark(limits=limits, is_async=is_async(run)))


def _function_below(proxy: object) -> Any:
    """The function that a proxy will make a task of; None when that cannot be told.

    Celery 5.6 and 5.7: ``app.task`` keeps it in the promise's arguments,
    ``shared_task`` in the closure of the function that looks the task up.
    """
    try:
        if type(proxy) is PromiseProxy:
            return object.__getattribute__(proxy, "_Proxy__args")[0]
        lookup = object.__getattribute__(proxy, "_Proxy__local")
        return inspect.getclosurevars(lookup).nonlocals.get("fun")
    except (AttributeError, IndexError, TypeError):
        return None


def _is_made_from(task: Any, function: Any) -> bool:
    run = getattr(task, "_orig_run", task.run)
    return inspect.unwrap(getattr(run, "__func__", run)) is inspect.unwrap(function)


def _adopt(task: Any, mark: Mark) -> None:
    """Make a concurrent task of one that exists."""
    setattr(task, MARK, mark)
    sent.tell_of(task.name)
    if mark.is_async:
        # autoretry_for keeps the innermost function as _orig_run (CELERY: app/autoretry.py).
        attribute = "_orig_run" if hasattr(task, "_orig_run") else "run"
        run = getattr(task, attribute)
        setattr(task, attribute, driven(run, mark))
    given: frozenset[str] = getattr(task, _GIVEN, frozenset())
    given = given.union(*resolve_all(task.app.annotations, task))
    for option in LATE:
        if option not in given and not _said_by_class(task, option):
            setattr(task, option, True)


def _said_by_class(task: Any, option: str) -> bool:
    """Whether a class above the task's own, which Celery fills from the settings, sets it."""
    return any(vars(base).get(option) is not None for base in type(task).__mro__[1:])


def _legacy_limits(options: dict[str, Any], name: str, function: Any) -> Limits | None:
    if _LEGACY not in options:
        return None
    value = options.pop(_LEGACY)
    message = (
        f"{_LEGACY}={value!r} of {name} is the older spelling: put "
        f"@concurrent(max_inputs={value!r}) on the function instead"
    )
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        warnings.warn(message, DeprecationWarning, stacklevel=2)
    else:  # the task may be made long after its definition: point there
        warnings.warn_explicit(
            message, DeprecationWarning, code.co_filename, code.co_firstlineno, function.__module__
        )
    return _checked(value, f" of {name}")


def _checked(value: Any, of: str = "") -> Limits:
    try:
        return Limits(max_inputs=value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_LEGACY}={value!r}{of}: {error}") from error


def _concurrent_task_from_fun(
    original: Any, app: Celery, function: Any, options: dict[str, Any]
) -> Any:
    given = frozenset(options)
    legacy = _legacy_limits(options, getattr(function, "__qualname__", repr(function)), function)
    if legacy is not None:
        mark_function(function, legacy)
    mark = mark_of(function)
    if mark is not None:
        base = options.get("base") or app.Task
        for option in LATE:
            if option not in options and getattr(base, option, None) is None:
                options[option] = True
        if mark.is_async:
            function = driven(function, mark)
    task = original(app, function, **options)
    setattr(task, _GIVEN, given)
    if mark is not None:
        setattr(task, MARK, mark)
        sent.tell_of(task.name)
    return task


def _adopt_class_task(task: Any) -> None:
    """A class-based task may carry the mark on its ``run``, or the older option."""
    options = {_LEGACY: vars(type(task))[_LEGACY]} if _LEGACY in vars(type(task)) else {}
    legacy = _legacy_limits(options, task.name, task.run)
    if legacy is not None:
        _mark_made(task, legacy)
        return
    mark = mark_of(task.run)
    if mark is not None and MARK not in vars(task):
        _adopt(task, mark)


def install() -> None:
    """Wrap Celery's task creation; doing it twice changes nothing."""
    if hasattr(Celery._task_from_fun, "__concurrent_hook__"):
        return
    task_from_fun = Celery._task_from_fun
    register_task = Celery.register_task
    make_task = Celery.task

    @functools.wraps(make_task)
    def _task(self: Celery, *args: Any, **options: Any) -> Any:
        if _LEGACY in options:  # told here, for the task may be made long after its definition
            _checked(options[_LEGACY])
        return make_task(self, *args, **options)

    @functools.wraps(task_from_fun)
    def _task_from_fun(
        self: Celery, fun: Any, name: str | None = None, base: Any = None, **options: Any
    ) -> Any:
        return _concurrent_task_from_fun(
            task_from_fun, self, fun, dict(options, name=name, base=base)
        )

    @functools.wraps(register_task)
    def _register_task(self: Celery, task: Any, **options: Any) -> Any:
        # Registering fills what the class leaves open from the settings: look before.
        said = frozenset(option for option in LATE if getattr(task, option, None) is not None)
        task = register_task(self, task, **options)
        if _GIVEN not in vars(task):
            setattr(task, _GIVEN, said)
        _adopt_class_task(task)
        return task

    _task_from_fun.__concurrent_hook__ = True  # type: ignore[attr-defined]  # read above
    Celery._task_from_fun = _task_from_fun
    Celery.register_task = _register_task
    Celery.task = _task


install()
