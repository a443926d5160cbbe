"""Inputs as a pool makes them, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery_concurrent.limits import Limits
from celery_concurrent.pool.deadlines import Deadlines
from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.inbox import Inbox
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.runners import Runners
from celery_concurrent.pool.slots import Slots
from celery_concurrent.pool.timelimits import TimeLimits


def make_input(id: str, request: Any, *, is_async: bool = False) -> Input:
    """One of a task ``task`` without time limits, in a group of its name."""
    return Input(
        id=id,
        name="task",
        root_id=id,
        group="task",
        is_async=is_async,
        target=print,
        args=(),
        request=request,
        token=hash(id),
        soft_limit=None,
        hard_limit=None,
    )


@contextmanager
def engine_of_one_slot(runners: Runners) -> Iterator[tuple[Engine, Inbox]]:
    """An engine with one slot for the group ``task``, and its inbox, which a test drains."""
    inbox, deadlines = Inbox(), Deadlines()
    slots: Slots[Input] = Slots({"task": Limits(max_inputs=1)}, plain=1, cap=None, counted=["task"])
    limits = TimeLimits(deadlines, inbox.post, stuck_timeout=60.0, drain=lambda: None)
    yield Engine(runners, slots, inbox, limits, counts_early=lambda _: False, reserve=0), inbox
    deadlines.close()
