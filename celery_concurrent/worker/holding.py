"""A node's leases: how :mod:`celery_concurrent.redis.leases` fits into a pool."""

from __future__ import annotations

from collections.abc import Callable

from celery_concurrent.pool.core import NodePool
from celery_concurrent.redis.leases import Leases


def leases_of(pool: NodePool, name: str, held: Callable[[], list[str]]) -> Leases:
    """What keeps the lease of a node.

    Args:
        pool: the node's.
        name: the node's.
        held: tells the tags of the messages that the node has.
    """
    return Leases(
        name,
        pool.settings.redis_lease,
        thread=pool.make_threads("concurrent-lease", most=1),
        hop=pool.hop,
        # The consumer looks at the lease at each of its turns.
        changed=lambda: pool.inbox.post(_turn),
        held=held,
        gives_up=lambda: pool.engine.is_refusing,
    )


def _turn() -> None:
    """Nothing: that it is called is a turn."""
