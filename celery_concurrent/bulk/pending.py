"""Waiting for the results of inputs that are published: one task of the event loop for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from celery_concurrent.client import value_of

Wait = asyncio.Task[Any]


class Pending:
    """Results that are waited for.

    Args:
        loop: where. All is called by its thread, and inside of it or between its runs.
        in_order: give results in the order of the inputs, not of their arrival.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, in_order: bool) -> None:
        self._loop = loop
        self._in_order = in_order
        self._waits: dict[int, Wait] = {}  # in the order of the inputs
        self._arrived: deque[int] = deque()
        self._arrival = asyncio.Event()

    def add(self, handles: Iterable[tuple[int, Any]]) -> None:
        """Wait for the results of more inputs."""
        for number, handle in handles:
            wait = self._loop.create_task(value_of(handle))
            wait.add_done_callback(partial(self._arrive, number))
            self._waits[number] = wait

    def _arrive(self, number: int, wait: Wait) -> None:
        self._arrived.append(number)
        self._arrival.set()
        if not wait.cancelled():
            wait.exception()  # who breaks off does not want to hear of it

    async def wait(self) -> None:
        """Until there is something to take."""
        while self._first() is None:
            self._arrival.clear()
            await self._arrival.wait()

    def take(self, most: int) -> list[tuple[int, Wait]]:
        """What has arrived, at most so many."""
        taken: list[tuple[int, Wait]] = []
        while len(taken) < most and (number := self._first()) is not None:
            if not self._in_order:
                self._arrived.popleft()
            taken.append((number, self._waits.pop(number)))
        if self._in_order:
            self._arrived.clear()
        return taken

    def _first(self) -> int | None:
        if not self._in_order:
            return self._arrived[0] if self._arrived else None
        number, wait = next(iter(self._waits.items()), (None, None))
        return number if wait is not None and wait.done() else None

    def close(self) -> None:
        """Wait no longer; the inputs go on."""
        for wait in self._waits.values():
            wait.cancel()
        self._waits.clear()
