"""Services: a class with one instance per node, whose methods are tasks.

All methods share the service's slots. ``enter`` runs once per node, before it takes its first
input, ``exit`` at its warm shutdown; both may be ``async def``.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from celery import Celery

from celery_concurrent.bridge import run_coroutine
from celery_concurrent.errors import ConfigurationError, ServiceError
from celery_concurrent.limits import Limits
from celery_concurrent.marks import SERVICE, mark_function, mark_of, scaling_of, scaling_of_method

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_HOOK = "__service_hook__"
_services: list[Service] = []


class Method:
    """A method of a service: a task on the class, the plain method on an instance.

    Args:
        function: the method.
        options: Celery's options for its task.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function = function
        self.options = options
        self.task: Any = None
        functools.update_wrapper(cast(Any, self), function)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            return self.function.__get__(instance, owner)
        return self if self.task is None else self.task

    def __repr__(self) -> str:
        return f"<@method {self.__dict__.get('__qualname__')}>"

    def __getattr__(self, name: str) -> Any:
        # Asked for before @service has made a task of it: delay, s, apply_async.
        raise AttributeError(
            f"{self!r} is not a task yet and has no {name!r}: put @service(app, queue=...) on its "
            "class"
        )


@overload
def method(function: F, /) -> Any: ...
@overload
def method(**options: Any) -> Callable[[Callable[..., Any]], Any]: ...
def method(function: Any = None, /, **options: Any) -> Any:
    """Make a task of a service's method: ``@method`` or ``@method(soft_time_limit=10)``.

    Args:
        function: the method, sync or async.
        options: options of Celery's ``app.task``, above those of the service.
    """
    if function is None:
        return lambda function: method_of(function, options)
    return method_of(function, options)


def method_of(function: Any, options: dict[str, Any]) -> Method:
    """Check what ``@method`` was put on.

    Raises:
        ConfigurationError: it is no function of a class.
    """
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"@method cannot go on {function!r}, a {type(function).__name__}: put it on a method "
            "of the service's class"
        )
    return Method(function, options)


def enter(function: F) -> F:
    """Run this method once per node, before it takes its first input; may be async."""
    return _hook(function, "enter")


def exit(function: F) -> F:
    """Run this method at the node's warm shutdown, after its last input; may be async."""
    return _hook(function, "exit")


def _hook(function: F, kind: str) -> F:
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"@{kind} cannot go on {function!r}, a {type(function).__name__}: write @{kind} "
            "without parentheses on a method of the service's class"
        )
    setattr(function, _HOOK, kind)
    return function


def service(
    app: Celery, *, queue: str | None = None, name: str | None = None, **options: Any
) -> Callable[[C], C]:
    """Make a service of a class: its ``@method`` methods become tasks of ``app``.

    Below it goes ``@concurrent(max_inputs=...)``; without it inputs run one by one.

    Args:
        app: the Celery app.
        queue: the queue of all its methods; None for the app's default.
        name: prefix of the tasks' names; None for the class's module and name.
        options: options of Celery's ``app.task`` for all methods.

    Raises:
        ConfigurationError: no class, no method, or ``@concurrent`` on one of its methods.
    """
    if not isinstance(app, Celery):
        raise ConfigurationError(
            f"@service needs the Celery app, not {app!r}: write @service(app, queue=...)"
        )
    if queue is not None:
        options["queue"] = queue

    def decorate(cls: C) -> C:
        if not inspect.isclass(cls):
            raise ConfigurationError(f"@service goes on a class, not on {cls!r}")
        _services.append(Service(app, cls, name or f"{cls.__module__}.{cls.__qualname__}", options))
        setattr(cls, SERVICE, True)
        return cls

    return decorate


class Service:
    """One service of an app, and its instance in this process.

    Args:
        app: the Celery app.
        cls: the user's class.
        name: its group's name, and prefix of its tasks' names.
        options: options of every method's task.
    """

    def __init__(self, app: Celery, cls: type, name: str, options: dict[str, Any]) -> None:
        self.app = app
        self.cls = cls
        self.name = name
        mark = mark_of(cls)
        self.limits = Limits(max_inputs=1) if mark is None else mark.limits
        self._instance: Any = None
        self._error: BaseException | None = None
        self._lock = threading.RLock()
        members = _members(cls)
        self._enters = [n for n, m in members.items() if getattr(m, _HOOK, "") == "enter"]
        self._exits = [n for n, m in members.items() if getattr(m, _HOOK, "") == "exit"]
        methods = {n: m for n, m in members.items() if isinstance(m, Method)}
        self._check(members, methods)
        self.tasks = [self._task(n, m, options) for n, m in methods.items()]

    def load(self, run: Callable[[Callable[[], Any]], Any]) -> Any:
        """Make the instance and run its enter; ``run`` runs a hook to its end.

        Raises what the class or its enter raises.
        """
        with self._lock:
            if self._instance is None:
                made: list[Any] = []
                run(lambda: made.append(self.cls()))
                instance = made[0]
                for name in self._enters:
                    run(getattr(instance, name))
                self._instance = instance
            return self._instance

    def close(self, run: Callable[[Callable[[], Any]], Any]) -> None:
        """Run the instance's exit and forget it."""
        with self._lock:
            instance, self._instance = self._instance, None
        if instance is not None:
            for name in self._exits:
                run(getattr(instance, name))

    @property
    def instance(self) -> Any:
        """This process' instance; outside of a node made at the first use.

        Raises:
            ServiceError: it could not be made.
        """
        if self._instance is not None:
            return self._instance
        try:
            instance = self.load(_run_hook_here)
        except Exception as error:
            raise ServiceError(f"service {self.name} could not be loaded: {error!r}") from error
        atexit.register(self.close, _run_hook_here)
        return instance

    def _check(self, members: dict[str, Any], methods: dict[str, Method]) -> None:
        for name, member in members.items():
            function = member.function if isinstance(member, Method) else member
            if inspect.isfunction(function) and mark_of(function) is not None:
                raise ConfigurationError(
                    f"@concurrent on {self.name}.{name}: the methods of a service share its "
                    "slots; put one @concurrent on the class, below @service"
                )
            if inspect.isfunction(function) and scaling_of(function) is not None:
                raise scaling_of_method(self.name)
        if not methods:
            raise ConfigurationError(
                f"service {self.name} has no task: mark at least one method with @method"
            )

    def _task(self, name: str, method: Method, options: dict[str, Any]) -> Any:
        if vars(self.cls).get(name) is not method:  # inherited: each service has its own task
            method = Method(method.function, method.options)
            setattr(self.cls, name, method)
        function = self._bound_later(method.function)
        mark_function(function, self.limits, group=self.name)
        chosen = {"name": f"{self.name}.{name}", **options, **method.options}
        method.task = self.app.task(function, **chosen)
        return method.task

    def _bound_later(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The method as a function that finds the instance when an input runs."""

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(self.instance, *args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await function(self.instance, *args, **kwargs)

        bound: Any = call_async if inspect.iscoroutinefunction(function) else call
        functools.update_wrapper(bound, function)
        del bound.__wrapped__  # or Celery would check arguments with self among them
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]
        bound.__signature__ = signature.replace(parameters=parameters)
        return cast(Callable[..., Any], bound)


def services_of(app: Celery) -> list[Service]:
    """The services of an app, in the order of their definition."""
    return [service for service in _services if service.app is app]


def _members(cls: type) -> dict[str, Any]:
    """What the class and its bases define, the most derived first of each name."""
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        members.update(vars(base))
    return members


def _run_hook_here(hook: Callable[[], Any]) -> None:
    result = hook()
    if inspect.iscoroutine(result):
        run_coroutine(result)
