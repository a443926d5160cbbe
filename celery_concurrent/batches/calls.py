"""Running a function of a list, and what comes of it.

Nobody's exception is anybody else's: who handles one may clear the frames that it came through,
as Celery does, and with them the coroutine of another caller who still handles his.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextvars import Context, ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from celery_concurrent.batches.thread import CallThread
from celery_concurrent.errors import BatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """How a call ended that raised something."""

    error: BaseException
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        return cls(error=error, traceback=error.__traceback__)


class Call:
    """Runs the function: a ``def`` on a thread, an ``async def`` as a task.

    Both give the list of results, or :class:`Raised` for whatever was raised: a future takes no
    StopIteration, and a SystemExit would end its thread, or the loop.

    Args:
        function: takes a list, returns an iterable with a result for each of its elements.
        name: its name, for people.
        is_async: whether it is to be called on the event loop.
        thread: gives the thread for one that is not.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        is_async: bool,
        thread: Callable[[], CallThread],
    ) -> None:
        self.name = name
        self._function = function
        self._is_async = is_async
        self._thread = thread

    @property
    def is_around(self) -> bool:
        """Whether this is asked from within a call of it, on the event loop."""
        return _CALLED.get() is self

    def start(
        self, loop: asyncio.AbstractEventLoop, elements: list[Any]
    ) -> asyncio.Future[list[Any] | Raised]:
        """Begin a call, which belongs to no input: it has none of their contexts."""
        if not self._is_async:
            return self._thread().run(loop, lambda: self._run(elements))
        context, run = Context(), self._run_async(elements)
        context.run(_CALLED.set, self)
        try:
            return context.run(loop.create_task, run)
        except BaseException:
            run.close()  # or Python would miss its await
            raise

    def cancelled(self) -> Raised:
        """How a call ended that was cancelled, which none of its callers was."""
        return Raised.of(BatchError(f"a call of {self.name} was cancelled"))

    def _run(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            return self._checked(self._function(elements), len(elements))
        except BaseException as error:
            return Raised.of(error)

    async def _run_async(self, elements: list[Any]) -> list[Any] | Raised:
        try:
            returned = self._function(elements)
            if inspect.isawaitable(returned):
                returned = await returned
            return self._checked(returned, len(elements))
        except asyncio.CancelledError as error:
            raised = self.cancelled()
            raised.error.__cause__ = error
            return raised
        except BaseException as error:
            return Raised.of(error)

    def _checked(self, returned: Any, count: int) -> list[Any]:
        remedy = "return a list with one result per element, in their order"
        if not isinstance(returned, Iterable) or isinstance(
            returned, str | bytes | Mapping | AbstractSet
        ):
            raise BatchError(
                f"{self.name} was given {count} elements and returned {returned!r:.100}: {remedy}"
            )
        results = list(returned)
        if len(results) != count:
            raise BatchError(
                f"{self.name} was given {count} elements and returned {len(results)} results: "
                f"{remedy}"
            )
        return results


_CALLED: ContextVar[Call | None] = ContextVar("called", default=None)


def own_copy(error: BaseException) -> BaseException:
    """The same error for one caller alone, without what others have added to its traceback."""
    kind = type(error)
    try:
        own = copy.copy(error)
    except Exception:
        own = None
    if type(own) is not kind:
        try:  # an __init__ that takes something else than what it hands on
            own = kind.__new__(kind, *error.args)
            own.__dict__.update(error.__dict__)
        except Exception:
            own = BatchError(f"a call raised {error!r}, which cannot be copied for each caller")
            own.__cause__ = error
            return own
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own
