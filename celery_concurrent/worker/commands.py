"""What a node answers when it is asked by Celery's remote control: its inputs, and their lines.

Every ``celery`` command imports this module, so that ``celery inspect`` knows the commands' names.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery.worker.control import inspect_command

if TYPE_CHECKING:
    from celery_concurrent.pool.core import NodePool

#: Inputs that are told at once at the most.
MOST = 1000


@inspect_command(args=[("limit", int)], signature="[limit=100]")
def node_inputs(state: Any, limit: int = 100) -> dict[str, Any]:
    """The inputs in the node's slots and in line for one, the longest there first."""
    pool = _pool_of(state)
    if pool is None:
        return {"inputs": [], "total": 0}
    now = time.monotonic()
    inputs = sorted(pool.engine.held, key=lambda each: (each.started_at is None, each.token))
    shown = inputs[: max(0, min(int(limit), MOST))]
    return {
        "total": len(inputs),
        "inputs": [
            {
                "id": input.id,
                "task": input.name,
                "group": input.group,
                "state": "reserved" if input.started_at is None else "running",
                "seconds": 0.0 if input.started_at is None else round(now - input.started_at, 3),
            }
            for input in shown
        ],
    }


@inspect_command(args=[("input_id", str)], signature="<input id>")
def input_log(state: Any, input_id: str) -> dict[str, Any]:
    """The last log lines of an input that ran here."""
    pool = _pool_of(state)
    if pool is None:
        return {"error": "this worker's pool keeps no log lines: start it with -P concurrent"}
    if pool.logs is None:
        return {"error": "concurrent_log_lines=0: this node keeps no log lines"}
    kept = pool.logs.of(input_id)
    if kept is None:
        return {"error": f"no line of input {input_id} is kept here (any more)"}
    return kept


def _pool_of(state: Any) -> NodePool | None:
    from celery_concurrent.pool.core import NodePool

    pool = getattr(state.consumer, "pool", None)
    return pool if isinstance(pool, NodePool) else None
