"""One lease, as those see it that ask whether it lives; :mod:`.leases` keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from uuid import uuid4

from redis.exceptions import ConnectionError as RedisConnectionError

#: Goes on while a machine is suspended, where the system has such a clock.
clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


class LeaseLostError(RedisConnectionError):
    """The node's lease has lapsed, and what it held is with others: start over.

    The consumer meets it as a lost connection, after which it has nothing that it held.
    """


class Lease:
    """One lease, from its first renewal until it is lost.

    Args:
        name: whose it is, for people who read Redis' keys.
        confirm: asks Redis whether it lives, and waits for the answer.
    """

    def __init__(self, name: str, confirm: Callable[[Lease], bool]) -> None:
        self.id = f"{name}.{uuid4()}"
        self.is_lost = False
        #: On this clock: until then no other node can find it lapsed.
        self.fresh_until = 0.0
        self._confirm = confirm

    @property
    def is_fresh(self) -> bool:
        """Whether it lives for sure."""
        return clock() < self.fresh_until and not self.is_lost

    def confirm(self) -> bool:
        """Whether it lives; waits while that cannot be told."""
        return self.is_fresh or self._confirm(self)
