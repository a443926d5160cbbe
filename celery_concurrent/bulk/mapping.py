"""``task_map``: many inputs of one task, published together, their results as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Literal, TypeVar, overload

from celery.canvas import Signature

from celery_concurrent.bulk.account import Account
from celery_concurrent.bulk.flow import Flow, Plan
from celery_concurrent.bulk.pending import Pending, Wait
from celery_concurrent.bulk.stepping import hopping, stepping
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.offloop import off_the_loop

T = TypeVar("T")
R = TypeVar("R")
Start = Callable[[bool], AbstractContextManager[Flow]]

_USAGE = "as in task_map(fetch, urls)"


class Results(Generic[T]):
    """Results of a map, for ``for`` and ``async for``; the inputs are published on the way.

    With ``for`` in plain programs, threads and sync inputs; it blocks between results. With
    ``async for`` in asyncio programs and async inputs; the event loop runs on meanwhile.
    """

    def __init__(self, start: Start, shape: Callable[[int, Any], T], *, in_order: bool) -> None:
        self._start = start
        self._shape = shape
        self._in_order = in_order

    def __iter__(self) -> Generator[T, None, None]:
        with stepping() as (loop, step), self._start(True) as flow:
            pending = Pending(loop, in_order=self._in_order)
            try:
                while not flow.is_at_its_end:
                    if flow.has_room:
                        pending.add(hopping(flow.publish, flow.take()))
                        step(asyncio.sleep(0))  # what has arrived is heard of
                    else:
                        step(pending.wait())
                    for number, wait in pending.take(flow.chunk):
                        yield self._handed_out(flow, number, wait)
            finally:
                pending.close()

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        with self._start(True) as flow:
            pending = Pending(asyncio.get_running_loop(), in_order=self._in_order)
            try:
                while not flow.is_at_its_end:
                    if flow.has_room:
                        pending.add(await off_the_loop(flow.publish, flow.take()))
                    else:
                        await pending.wait()
                    for number, wait in pending.take(flow.chunk):
                        yield self._handed_out(flow, number, wait)
            finally:
                pending.close()

    def _handed_out(self, flow: Flow, number: int, wait: Wait) -> T:
        error = wait.exception()
        value = flow.hand_out(number, error, wait.result() if error is None else None)
        return self._shape(number, value)


class TaskMap(Results[R]):
    """Inputs of one task, not yet published. Use it once: in one loop, or by one call.

    Iterating gives each input's value as it arrives, in no order. What :meth:`in_order` and
    :meth:`indexed` return is iterated in its place; :meth:`publish` and :meth:`apublish` do not
    wait for results.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(self._started, _value, in_order=False)
        self._plan = plan
        self._account = Account()
        self._is_used = False

    def in_order(self) -> Results[R]:
        """The values in the order of the inputs."""
        return Results(self._started, _value, in_order=True)

    def indexed(self) -> Results[tuple[int, R]]:
        """Each input's number, from 0, and its value, as they arrive."""
        return Results(self._started, _pair, in_order=False)

    def publish(self) -> list[Any]:
        """Publish all inputs and return their ``AsyncResult``, in the inputs' order.

        Raises:
            PublishError: not all of them were published; it tells which were.
        """
        with self._started(False) as flow:
            while not flow.is_published:
                hopping(flow.publish, flow.take())
        return self.published

    async def apublish(self) -> list[Any]:
        """The same for async code: the event loop runs on meanwhile."""
        with self._started(False) as flow:
            while not flow.is_published:
                await off_the_loop(flow.publish, flow.take())
        return self.published

    @property
    def published(self) -> list[Any]:
        """Handles of the inputs that the broker has, less those whose results you were given.

        Also after Ctrl-C or an error: await them, or revoke them.
        """
        return list(self._account.seen()["published"].values())

    @property
    def uncertain(self) -> list[Any]:
        """Handles of the inputs that were on their way when a connection, or you, broke off."""
        return list(self._account.seen()["uncertain"].values())

    @contextmanager
    def _started(self, waits: bool) -> Iterator[Flow]:
        if self._is_used:
            raise ConfigurationError(
                f"this task_map of {self._plan.task.name} was used before, and its inputs are "
                "published: make another one"
            )
        self._is_used = True
        with self._plan.started(self._account, waits=waits) as flow:
            yield flow


@overload
def task_map(
    task: Callable[..., Awaitable[R]],
    iterable: Iterable[Any],
    *,
    kwargs: Mapping[str, Any] | None = ...,
    chunk: int = ...,
    max_pending: int | None = ...,
    return_exceptions: Literal[False] = ...,
    progress: bool = ...,
    **options: Any,
) -> TaskMap[R]: ...


@overload
def task_map(
    task: Callable[..., Awaitable[R]],
    iterable: Iterable[Any],
    *,
    kwargs: Mapping[str, Any] | None = ...,
    chunk: int = ...,
    max_pending: int | None = ...,
    return_exceptions: bool,
    progress: bool = ...,
    **options: Any,
) -> TaskMap[R | Exception]: ...


@overload
def task_map(
    task: Callable[..., R],
    iterable: Iterable[Any],
    *,
    kwargs: Mapping[str, Any] | None = ...,
    chunk: int = ...,
    max_pending: int | None = ...,
    return_exceptions: Literal[False] = ...,
    progress: bool = ...,
    **options: Any,
) -> TaskMap[R]: ...


@overload
def task_map(
    task: Callable[..., R],
    iterable: Iterable[Any],
    *,
    kwargs: Mapping[str, Any] | None = ...,
    chunk: int = ...,
    max_pending: int | None = ...,
    return_exceptions: bool,
    progress: bool = ...,
    **options: Any,
) -> TaskMap[R | Exception]: ...


def task_map(
    task: Any,
    iterable: Iterable[Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    chunk: int = 500,
    max_pending: int | None = 1_000,
    return_exceptions: bool = False,
    progress: bool = False,
    **options: Any,
) -> TaskMap[Any]:
    """Call a task for each element of an iterable; publish many inputs at once.

    Nothing happens until the map is iterated, or its ``publish()`` called. Messages are what
    ``apply_async`` would send. On Redis and RabbitMQ a chunk of them goes out together; on other
    transports, and where something wants to see each message by itself (receivers of
    ``before_task_publish``, an ``apply_async`` of your own, a router that is a function,
    ``task_send_sent_event``), each goes out by ``apply_async``.

    Args:
        task: a registered task.
        iterable: of arguments, one element for each input; :class:`Arguments` where an input
            takes more than one. It is read as far as ``max_pending`` allows.
        kwargs: keyword arguments of every input.
        chunk: inputs that go out together, 1 or more. A chunk waits 0.1 s at the most for a slow
            iterable.
        max_pending: inputs without a result at one time, 1 or more; None for any number. Fewer
            than your nodes have slots leave slots empty. ``publish()`` does not look at it.
        return_exceptions: give what an input raises as its value, and go on; otherwise the loop
            ends with it, and the other inputs run on.
        progress: show a progress bar; needs rich.
        options: as for ``apply_async``: queue, priority, countdown, headers and so on.

    Raises:
        ConfigurationError: a value that cannot work.
    """
    if isinstance(task, Signature) or not all(
        hasattr(task, name) for name in ("apply_async", "app", "name")
    ):
        raise ConfigurationError(
            f"task_map() got {task!r}, a {type(task).__name__}: give it a task, and options by "
            f"name, {_USAGE[:-1]}, queue='web')"
        )
    if not isinstance(iterable, Iterable):
        raise ConfigurationError(
            f"task_map() got {iterable!r}, a {type(iterable).__name__}, for its inputs: give it "
            f"an iterable, {_USAGE}"
        )
    for name, value in (("chunk", chunk), ("max_pending", max_pending)):
        if value is None and name == "max_pending":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name}={value!r} of task_map() must be an int of 1 or more")
    if "task_id" in options:
        raise ConfigurationError(
            f"task_id={options['task_id']!r} cannot be the id of each input of task_map(): leave "
            "it out, or call apply_async() for each"
        )
    plan = Plan(
        task=task,
        iterable=iterable,
        kwargs=kwargs or {},
        options=options,
        chunk=chunk,
        max_pending=max_pending,
        return_exceptions=return_exceptions,
        progress=progress,
    )
    return TaskMap(plan)


def _value(_: int, value: Any) -> Any:
    return value


def _pair(number: int, value: Any) -> tuple[int, Any]:
    return number, value
