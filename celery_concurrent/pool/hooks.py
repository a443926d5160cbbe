"""Running the hooks of services, which belong to no input, to their end."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class Hook:
    """An enter or exit that is running.

    Args:
        call: the user's method, sync or async.
        run_sync: runs a function where it may block.
        run_async: runs a coroutine on the loop of the async inputs; its second argument gets
            the future when it is done.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        *,
        run_sync: Callable[[Callable[[], None]], None],
        run_async: Callable[[Coroutine[Any, Any, Any], Callable[[Any], None]], None],
    ) -> None:
        self._call = call
        self._ended = threading.Event()
        self._error: BaseException | None = None
        if inspect.iscoroutinefunction(call):
            run_async(call(), self._done)
        else:
            run_sync(self._run)

    def wait(self, timeout: float) -> bool:
        """Whether it has ended, within that many seconds; raises what the hook raised."""
        if not self._ended.wait(timeout):
            return False
        if self._error is not None:
            raise self._error
        return True

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._error = error
        self._ended.set()

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._error = asyncio.CancelledError() if future.cancelled() else future.exception()
        self._ended.set()
