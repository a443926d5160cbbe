"""observe, decide, apply: one thread that keeps every fleet of an app.

What always holds: only :meth:`Autoscaler.turn` starts, drains and stops nodes, and only on the
loop's thread. Others wake it, or ask it to call something between two turns. Order of a stop:
all nodes drain, if they are to, while turns start no other; then the provider lets go of what is
left, then the broker is left.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias

from celery.utils.log import get_logger

from celery_concurrent.autoscaler.actions import Actions
from celery_concurrent.autoscaler.keeper import Keeper
from celery_concurrent.autoscaler.observe import Reading
from celery_concurrent.autoscaler.provider import (
    NodeProcess,
    NodeStartError,
    ProcessState,
    Provider,
    ProviderError,
)
from celery_concurrent.autoscaler.reports import Reports
from celery_concurrent.autoscaler.sources import BacklogSource, Pins, Seen
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet

logger = get_logger(__name__)

#: Seconds between two looks when nothing happens: what nodes say comes about as often.
TICK = 1.0

#: A call, and who waits for what it returns.
Asked: TypeAlias = tuple[Callable[[], Any], Future[Any]]


class Autoscaler:
    """Keeps the fleets of one app.

    Args:
        fleets: by queue.
        provider: the engine.
        backlog: reads the broker.
        reports: what nodes say.
        pins: shares out devices.
        clock: monotonic seconds; the provider's clock too.
        wall: the time of day, for people.
    """

    def __init__(
        self,
        fleets: Mapping[str, Fleet],
        *,
        provider: Provider,
        backlog: BacklogSource,
        reports: Reports,
        pins: Pins,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.keepers = {queue: Keeper(fleet, wall=wall) for queue, fleet in fleets.items()}
        self.provider = provider
        self.reports = reports
        self._backlog = backlog
        self.pins = pins
        self._clock = clock
        self._told_to_end: set[str] = set()
        self._backlogs: Mapping[str, int | None] = {}
        #: What to call before the next look, and after it.
        self._before: deque[Asked] = deque()
        self._after: deque[Asked] = deque()
        self._woken = threading.Event()
        self._has_heard = threading.Event()
        self._stopping = False

    # -- from any thread

    def wake(self) -> None:
        """Look at once: something has happened."""
        self._woken.set()

    def heard(self) -> None:
        """Look with the next reading of the backlog: a thousand nodes say a thousand words."""
        self._has_heard.set()

    def ask(self, call: Callable[[], Any], *, after_look: bool = False) -> Future[Any]:
        """Have ``call`` made on the loop's thread, at once.

        Args:
            call: made before the next look, which goes by what it has changed.
            after_look: made after that look, for what tells of what was seen.
        """
        future: Future[Any] = Future()
        (self._after if after_look else self._before).append((call, future))
        self.wake()
        return future

    def stop(self) -> None:
        """Have :meth:`run` return after its turn."""
        self._stopping = True
        self.wake()

    # -- from the loop's thread, by hand

    def drain_node(self, name: str) -> None:
        """Have one node finish what it has, and leave.

        Raises:
            ConfigurationError: it is none of this autoscaler's nodes, or has ended.
        """
        self._drain(self._living_node(name))

    def stop_node(self, name: str) -> None:
        """End one node now; its inputs go back to the broker.

        Raises:
            ConfigurationError: it is none of this autoscaler's nodes, or has ended.
        """
        self._told_to_end.add(self._living_node(name))
        self.provider.stop(name)

    def _living_node(self, name: str) -> str:
        living = [process.name for process in self.provider.list() if process.lives]
        if name not in living:
            others = ", ".join(sorted(living)) or "none"
            raise ConfigurationError(f"no node {name!r} lives: the autoscaler keeps {others}")
        return name

    # -- the loop

    def run(self) -> None:
        """Turn until :meth:`stop`: when woken, when it is time, or when a reading has news."""
        self._turn_until(lambda: self._stopping)

    def end(self) -> None:
        """Drain all nodes; turn on, and answer, until the last one has left."""
        for keeper in self.keepers.values():
            keeper.ending = True
        for process in self.provider.list():
            self._drain(process.name)
        self._turn_until(lambda: not any(process.lives for process in self.provider.list()))

    def _turn_until(self, is_over: Callable[[], bool]) -> None:
        seen = None
        while True:
            # Cleared before anything is looked at: what comes from here on is looked at again.
            self._woken.clear()
            self._has_heard.clear()
            if is_over():
                break
            self._answer(self._before, len(self._before))
            # Only who has asked by now: what was seen may be older than a later question.
            waiting = len(self._after)
            due = self._clock() + self.turn(seen)
            self._answer(self._after, waiting)
            seen = self._rest(due)
        for asked in (self._before, self._after):
            self._answer(asked, len(asked))

    def _rest(self, due: float) -> Seen | None:
        """Return when there is something to look at, with what was read if that was just now."""
        while (left := due - self._clock()) > 0:
            if self._woken.wait(min(left, self._backlog.pause)):
                break
            seen = self._read()
            if self._has_heard.is_set() or seen.backlogs != self._backlogs:
                return seen
        return None

    def turn(self, seen: Seen | None = None) -> float:
        """Look at every fleet once and apply what follows; returns seconds until the next look.

        Args:
            seen: what was just read; None for a reading of its own.
        """
        processes = self._processes()
        if processes is not None:
            processes = self._bury(processes)
            self.pins.let_go(processes)
            self.reports.forget_others({process.name for process in processes}, self._clock())
        # One list for all fleets: what the first of them starts has its devices for the others.
        living = [] if processes is None else processes
        by_queue: dict[str, list[NodeProcess]] = defaultdict(list)
        for process in living:
            by_queue[process.queue].append(process)
        before = self._backlogs
        seen = self._read() if seen is None else seen
        backlogs = self._backlogs = seen.backlogs
        now = self._clock()
        # Those with news first: a round of a thousand fleets takes ten milliseconds and more.
        for queue in sorted(self.keepers, key=lambda each: backlogs.get(each) == before.get(each)):
            keeper = self.keepers[queue]
            if keeper.trouble.wait(now):
                continue
            own = None if processes is None else tuple(by_queue[queue])
            reading = Reading(
                now=now, backlog=backlogs.get(queue), processes=own, reports=seen.reports
            )
            self._keep(keeper, reading, living)
        self._drain_useless(living)
        return self._pause(now)

    def _read(self) -> Seen:
        # In this order: an input that is taken meanwhile is in neither, and not in both.
        reports = self.reports.all()
        return Seen(reports=reports, backlogs=self._backlog.read(tuple(self.keepers)))

    def _processes(self) -> list[NodeProcess] | None:
        try:
            return list(self.provider.list())
        except ProviderError as error:
            logger.warning("the engine does not tell its nodes, so fleets are held: %s", error)
            return None

    def _bury(self, processes: list[NodeProcess]) -> list[NodeProcess]:
        """Account for nodes that have ended, and forget them; returns the living."""
        for process in processes:
            if process.lives:
                continue
            keeper = self.keepers.get(process.queue)
            if keeper is not None:
                keeper.ended(
                    process,
                    now=self._clock(),
                    asked=process.drained or process.name in self._told_to_end,
                    report=self.reports.of(process.name),
                )
            self._told_to_end.discard(process.name)
            self.reports.forget(process.name)
            self.provider.stop(process.name)
        return [process for process in processes if process.lives]

    def _keep(self, keeper: Keeper, reading: Reading, living: list[NodeProcess]) -> None:
        """Decide and apply; whatever goes wrong with one fleet, the others are kept."""
        try:
            self._apply(keeper, keeper.look(reading), living)
        except Exception as error:
            keeper.look_failed(error, now=reading.now)
            logger.exception(
                "fleet %s cannot be kept, and is looked at again in %.0f s",
                keeper.fleet.queue,
                keeper.trouble.wait(reading.now),
            )
        else:
            keeper.look_succeeded()

    def _apply(self, keeper: Keeper, actions: Actions, living: list[NodeProcess]) -> None:
        for name in (*actions.cancel, *actions.drain):
            # A starting node may have fetched inputs by now: it too is asked, not killed.
            self._drain(name)
        if actions.start:
            self._start(keeper, actions.start, living)
        else:
            keeper.missing = None

    def _start(self, keeper: Keeper, count: int, living: list[NodeProcess]) -> None:
        fleet = keeper.fleet
        environments, missing = self.pins.environments(fleet, count, living)
        if missing is not None and missing != keeper.missing:
            logger.warning("fleet %s stays at what fits: %s", fleet.queue, missing)
        keeper.missing = missing
        spec = _Spec(fleet)
        for environment in environments:
            try:
                name = self.provider.start(spec, environment)
            except NodeStartError as error:
                keeper.backoff = keeper.backoff.crashed(now=self._clock(), lived=0.0)
                keeper.last_lines = (str(error),)
                logger.error("fleet %s cannot start a node: %s", fleet.queue, error)
                # Other fleets must not get the devices of a process that is there all the same.
                living[:] = [process for process in self.provider.list() if process.lives]
                return
            living.append(
                NodeProcess(
                    name=name,
                    queue=fleet.queue,
                    state=ProcessState.PENDING,
                    since=self._clock(),
                    began=self._clock(),
                    env=environment,
                )
            )

    def _drain(self, name: str) -> None:
        self._told_to_end.add(name)
        self.provider.drain(name)

    def _drain_useless(self, living: list[NodeProcess]) -> None:
        """Drain nodes that hold their devices for nothing."""
        for process in living:
            if process.drained or process.name in self._told_to_end:
                continue
            if process.queue not in self.keepers:
                # Adopted: the app's last version had it. No other fleet could have its devices.
                logger.warning(
                    "draining %s: no concurrent task is routed to its queue %r any more",
                    process.name,
                    process.queue,
                )
                self._drain(process.name)
            elif (why := self.pins.lost(process)) is not None:
                logger.error("draining %s: %s", process.name, why)
                self._drain(process.name)

    def _pause(self, now: float) -> float:
        times = [keeper.look_again_at() for keeper in self.keepers.values()]
        soonest = min((at for at in times if at is not None), default=now + TICK)
        return max(0.0, min(TICK, soonest - now))

    @staticmethod
    def _answer(asked: deque[Asked], count: int) -> None:
        for _ in range(count):
            call, future = asked.popleft()
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)


class _Spec:
    """A fleet as a provider wants to know it."""

    def __init__(self, fleet: Fleet) -> None:
        self.queue = fleet.queue
        self.gpus = fleet.knobs.gpus
