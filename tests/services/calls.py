"""A batched function of which a test holds the calls."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from celery_concurrent import batched


def is_gone(reference: weakref.ref[Any]) -> bool:
    """Whether nothing keeps it, once the thread of a call is over its last lines."""
    gc.collect()
    return reference() is None


class Calls:
    """A function whose calls end when the test says so; what it was given."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.threads: set[int] = set()
        self._may_end = threading.Semaphore(0)

    def __call__(self, elements: list[Any]) -> list[Any]:
        self.seen.append(elements)
        self.threads.add(threading.get_ident())
        assert self._may_end.acquire(timeout=10)
        return [-element for element in elements]

    def end(self, count: int = 1) -> None:
        self._may_end.release(count)

    async def begun(self, count: int) -> None:
        for _ in range(1_000):
            if len(self.seen) >= count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{count} calls did not begin: {self.seen}")


def negated(calls: Calls, **options: Any) -> Callable[[int], Coroutine[Any, Any, int]]:
    @batched(**{"max_batch_size": 4, **options})
    def negate(numbers: list[int]) -> list[int]:
        return calls(numbers)

    return negate
