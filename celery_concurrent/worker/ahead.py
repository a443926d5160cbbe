"""Fetching ahead where inputs are short, and giving back what turns out to wait.

:mod:`celery_concurrent.pool.reserve` says how many, from how long inputs lasted. It cannot know how
long the next ones last: a line that has not moved for a while goes back to its queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.slots import PLAIN, Group
from celery_concurrent.redis.refusals import refusals_as_lost_connections

#: Seconds after which a line that has not moved goes back.
STANDSTILL: Final = 0.25


class Ahead:
    """How much each group fetches ahead; all on the consumer's thread.

    Plain tasks have Celery's multiplier instead, and what the user sets holds whatever happens.

    Args:
        engine: has the inputs.
        lower: tells the broker of what a group may fetch now.
    """

    def __init__(self, engine: Engine, lower: Callable[[], None]) -> None:
        self._engine = engine
        self._lower = lower
        self._may = False
        #: Who stood first, by group, when a look was asked for; empty when none is to come.
        self._first: dict[str, Input] = {}

    def allow(self, may: bool) -> None:
        """Whether this connection fetches ahead: only where what was fetched can be given back."""
        self._may = may
        self._first = {}  # Celery cancels a connection's timers (5.7)

    def of(self, group: Group[Any]) -> int:
        """How many inputs of the group are fetched beside those in its slots."""
        reserves = self._engine.reserves
        return reserves.of(group) if self._may or reserves.is_fixed else 0

    def waits(self, group: str) -> None:
        """An input of the group waits for something else than a slot: more would, too."""
        self._engine.reserves.lasts(group)

    def watch(self, timer: Any) -> None:
        """Have lines looked at again; to be called at each turn, before the hub sleeps."""
        if self._first or not self._may or self._engine.reserves.is_fixed:
            return
        slots = self._engine.slots
        # All of them: what was fetched ahead waits on when no more is.
        for name, group in slots.groups.items():
            if group.waiting and name != PLAIN:
                first = slots.first_in_line(name)
                if first is not None:
                    self._first[name] = first
        if self._first:
            timer.call_after(STANDSTILL, self._look, (self._first,))

    def _look(self, watched: dict[str, Input]) -> None:
        if watched is not self._first:  # of an earlier connection
            return
        self._first = {}
        if self._engine.is_refusing:
            return
        slots = self._engine.slots
        stand = [name for name, first in watched.items() if slots.first_in_line(name) is first]
        for name in stand:
            self._engine.reserves.lasts(name)
        if stand:
            # First, or the broker sends what comes back here again.
            self._lower()
        # What the hub's timers raise is logged and forgotten, but for connections' errors.
        with refusals_as_lost_connections():
            for name in stand:
                self._engine.send_ahead_back(name)
