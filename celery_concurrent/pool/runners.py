"""What inputs run on, as the engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple, Protocol

from celery_concurrent.pool.inputs import Input


class Following(NamedTuple):
    """An input that has the slot of one that has ended, and the context to run it in."""

    input: Input
    context: Context


#: The work of an input; never raises. What it returns has its slot by now: its runner runs that
#: next, where it has run this. Both are sync, or both async.
Run = Callable[[Input], Following | None]


class Runners(Protocol):
    """What inputs run on."""

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        """Call ``run`` in ``context``, where it may block; set the input's interrupter before."""

    def run_async(self, input: Input, context: Context, run: Run) -> None:
        """Call ``run`` in a greenlet of an asyncio task; set the input's interrupter before."""
