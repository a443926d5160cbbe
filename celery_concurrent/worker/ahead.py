"""Fetching ahead where inputs are short, and giving back what turns out to wait.

:mod:`celery_concurrent.pool.reserve` says how many, from how long inputs lasted. It cannot know how
long the next ones last: where a line has not moved for a while, the lane gives back what it holds
above its slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.slots import PLAIN, Group
from celery_concurrent.rabbitmq.closures import closed_channels_as_lost_connections
from celery_concurrent.redis.refusals import refusals_as_lost_connections
from celery_concurrent.worker.lanes import LaneConsumer, Lanes

#: Seconds after which a line that has not moved goes back.
STANDSTILL: Final = 0.25


class Ahead:
    """How much each group fetches ahead; all on the consumer's thread.

    Plain tasks have Celery's multiplier instead, and what the user sets holds whatever happens.

    Args:
        engine: has the inputs.
        timer: the hub's.
    """

    def __init__(self, engine: Engine, timer: Any) -> None:
        self._engine = engine
        self._timer = timer
        self._lanes: Lanes | None = None
        #: Who stood first, by group, when a look was asked for; empty when none is to come.
        self._first: dict[str, Input] = {}
        self._may = False

    def begin(self, may: bool) -> None:
        """A new connection, on which inputs can be given back, or cannot."""
        self._may, self._lanes, self._first = may, None, {}
        self._engine.on_wait = self.watch
        self._engine.redeliveries.may_be_given_back = may

    def attend(self, lanes: Lanes) -> None:
        """These are its lanes."""
        self._lanes = lanes

    def of(self, group: Group[Any]) -> int:
        """How many inputs of the group are fetched beside those in its slots."""
        reserves = self._engine.reserves
        reserve = reserves.of(group)
        if not reserve or reserves.is_fixed:
            return reserve
        # Groups that wait for each other's slots would do so until a reserve has run out, which
        # is filled again before.
        return reserve if self._may and not self._engine.slots.is_oversubscribed else 0

    def waits(self, group: str) -> None:
        """An input of the group waits for something else than a slot: more would, too."""
        self._engine.reserves.lasts(group)

    def watch(self) -> None:
        """Have the lines looked at in a while, unless they are to be anyway.

        Not at the end of the hub's turn, where it knows already until when it sleeps (kombu 5.7).
        """
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
            self._timer.call_after(STANDSTILL, self._look, (self._first,))

    def _look(self, watched: dict[str, Input]) -> None:
        if watched is not self._first:  # of an earlier connection
            return
        self._first = {}
        if self._engine.is_refusing or self._lanes is None:
            return
        slots = self._engine.slots
        stand = {name for name, first in watched.items() if slots.first_in_line(name) is first}
        lanes = [lane for lane in self._lanes if lane.lane.groups & stand]
        for lane in lanes:
            # Of all groups: what one has room for may be another's.
            for name in lane.lane.groups:
                self._engine.reserves.lasts(name)
        # What the hub's timers raise is logged and forgotten, but for connections' errors.
        with refusals_as_lost_connections(), closed_channels_as_lost_connections():
            if lanes:
                self._lanes.update()  # first, or the broker sends what comes back here again
                self._relieve(lanes, stand)
        self.watch()

    def _relieve(self, lanes: Iterable[LaneConsumer], stand: set[str]) -> None:
        """Give back what lanes hold above what they would fetch now, where a line stands."""
        requests = [input.request for input in self._engine.held]
        held = Counter(each.message.channel for each in requests if not each.acknowledged)
        for lane in lanes:
            excess = lane.excess(held[lane.channel])
            for name in lane.lane.groups & stand:
                if excess > 0:
                    excess -= self._engine.send_ahead_back(name, excess, lane.can_give_back)
