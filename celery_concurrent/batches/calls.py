"""Running a function of a list, and what comes of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from celery_concurrent.batches.thread import ThreadMaker
from celery_concurrent.errors import BatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What a call raised, or returned as an exception, and where that came from."""

    error: BaseException
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        return cls(error=error, traceback=error.__traceback__)


class Call:
    """Runs the function: a ``def`` on a thread of its own, an ``async def`` as a task.

    Both give the list of outcomes, of which each may be :class:`Raised`, or one for all: a future
    takes no StopIteration, and a SystemExit would end its thread, or the loop.

    Args:
        function: takes a list, returns an iterable with a result for each of its elements.
        name: its name, for people.
        is_async: whether it is to be called on the event loop.
    """

    def __init__(self, function: Callable[..., Any], *, name: str, is_async: bool) -> None:
        self.name = name
        self.is_async = is_async
        self._function = function
        self._thread = ThreadMaker(f"batched-{name}")

    def start(
        self, loop: asyncio.AbstractEventLoop, elements: list[Any]
    ) -> asyncio.Future[list[Any] | Raised]:
        """Begin a call, which belongs to no input: it has none of their contexts."""
        if not self.is_async:
            return self._thread().run(loop, lambda: self._run(elements))
        run = self._run_async(elements)
        try:
            return Context().run(loop.create_task, run)
        except BaseException:
            run.close()  # or Python would miss its await
            raise

    def _run(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            return self._outcomes(self._function(elements), len(elements))
        except BaseException as error:
            return Raised.of(error)

    async def _run_async(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            returned = self._function(elements)
            if inspect.isawaitable(returned):
                returned = await returned
            return self._outcomes(returned, len(elements))
        except BaseException as error:
            return Raised.of(error)

    def _outcomes(self, returned: Any, count: int) -> list[Any]:
        remedy = "return a list with one result per element, in their order"
        if not isinstance(returned, Iterable) or isinstance(
            returned, str | bytes | Mapping | AbstractSet
        ):
            raise BatchError(
                f"{self.name} was given {count} elements and returned {returned!r:.100}: {remedy}"
            )
        outcomes = [
            Raised.of(result) if isinstance(result, BaseException) else result
            for result in returned
        ]
        if len(outcomes) != count:
            raise BatchError(
                f"{self.name} was given {count} elements and returned {len(outcomes)} results: "
                f"{remedy}"
            )
        return outcomes
