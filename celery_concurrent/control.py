"""Changing the slots of the node that this code runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_concurrent.errors import ConfigurationError, InputOutsideError

if TYPE_CHECKING:
    from celery_concurrent.pool.core import NodePool

#: The pool of the node that this process is; empty in any other process.
_pools: list[NodePool] = []


def attach(pool: NodePool) -> None:
    """Make this the process' node."""
    _pools[:] = [pool]


def detach(pool: NodePool) -> None:
    """The node has stopped."""
    if pool in _pools:
        _pools.clear()


def set_local_input_concurrency(concurrency: int) -> None:
    """Set how many inputs of the calling input's function this node runs at once.

    What runs above a lower number runs on.

    Args:
        concurrency: 1..max_inputs.

    Raises:
        ConfigurationError: another type, or out of range.
        InputOutsideError: not called below an input of a concurrent task in a node.
    """
    pool, name = _here("set_local_input_concurrency")
    most = pool.slots.groups[name].most
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(f"concurrency={concurrency!r} must be an int, 1 or more")
    if most is not None and concurrency > most:
        raise ConfigurationError(
            f"concurrency={concurrency!r} must lie in 1..max_inputs={most} of {name}; "
            "raise max_inputs to allow more"
        )
    pool.set_limit(name, concurrency)


def get_local_input_concurrency() -> int:
    """How many inputs of the calling input's function this node runs at once, at the most.

    Raises:
        InputOutsideError: not called below an input of a concurrent task in a node.
    """
    pool, name = _here("get_local_input_concurrency")
    return pool.slots.groups[name].allowed


def _here(caller: str) -> tuple[NodePool, str]:
    from celery_concurrent.pool.inputs import current_input  # the pool is the worker's alone

    current = current_input()
    if not _pools or current is None:
        raise InputOutsideError(
            f"{caller}() belongs below an input that runs in a node "
            "(celery worker -P concurrent); elsewhere use celery control pool_grow/pool_shrink"
        )
    return _pools[0], current.group
