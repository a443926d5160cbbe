"""Inputs as a pool makes them, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from celery_concurrent.pool.inputs import Input


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
