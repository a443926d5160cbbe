"""What a node tells of itself: ``concurrency-node`` events, for autoscaler, Flower and others.

They go out by Celery's event dispatcher, whether or not ``-E`` is given, on a thread and a
connection of their own. So they are told while services load, before the consumer connects;
while it looks for a lost broker, which is when nobody hears; and while the node drains, when
the consumer is gone. And a broker that does not answer holds up nothing but this thread.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.components import Pool

from celery_concurrent.board.words import NODE
from celery_concurrent.outlets import DispatcherOutlet, KeptOutlet, Outlet
from celery_concurrent.pool.core import NodePool
from celery_concurrent.pool.slots import Figures
from celery_concurrent.pool.status import Status

logger = get_logger(__name__)

#: The type of the event. A group of its own: ``worker-*`` and ``task-*`` mean more to Celery.
TYPE: Final = NODE
#: Seconds between two events at the most, some of the second being for the way.
LONGEST: Final = 0.9
#: Seconds between two events at the least.
SHORTEST: Final = 0.1
#: Seconds that a stop waits for the last event.
PATIENCE: Final = 2.0

#: Fields that change without anything having happened that somebody waits for.
_PASSING: Final = frozenset(
    {
        *("age", "state_age", "arrived", "finished", "devices"),
        *("cpu", "rss", "timing", "outcomes", "last_input"),
    }
)
_PAGE: Final = resource.getpagesize()


def event_fields(
    *,
    status: Status,
    node: Figures,
    groups: Mapping[str, Figures],
    queues: Iterable[str],
    reserved: int,
    scheduled: int,
    arrived: int,
    finished: int,
    device: str | None,
    timing: Mapping[str, Any],
    process: Mapping[str, Any],
) -> dict[str, Any]:
    """The event, less what Celery adds: type, hostname, pid, timestamp, utcoffset, clock.

    Args:
        status: the node's state, its devices, its note.
        node: its slots.
        groups: the slots by function or service.
        queues: that it consumes.
        reserved: inputs that it has fetched, that are due and do not run; those that wait for
            their rate limit belong to no group's line.
        scheduled: inputs that it has fetched and that are not due.
        arrived, finished: how many inputs have been due, and have ended, so far.
        device: what the node is pinned to, as in CUDA_VISIBLE_DEVICES; None for nothing.
        timing: what inputs took, see :meth:`Timing.fields`.
        process: its CPU and memory, see :func:`process_fields`.
    """
    return {
        "state": status.state,
        "state_age": round(status.state_age, 3),
        "age": round(status.age, 3),
        "queues": sorted(queues),
        **_told(node),
        "reserved": max(reserved, node.reserved),
        "scheduled": scheduled,
        "arrived": arrived,
        "finished": finished,
        "tasks": {name: _told(figures) for name, figures in groups.items()},
        "device": device,
        "devices": status.devices,
        "note": status.note,
        **timing,
        **process,
    }


def process_fields() -> dict[str, Any]:
    """``cpu``, the seconds that this process has used; ``rss``, bytes, None where nobody tells."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:  # not Linux
        rss = None
    return {"cpu": round(used.ru_utime + used.ru_stime, 3), "rss": rss}


def _told(figures: Figures) -> dict[str, int]:
    return {
        "slots": figures.slots,
        "target": figures.target,
        "running": figures.running,
        "reserved": figures.reserved,
    }


class Teller:
    """Sends a node's events on a thread of its own.

    One goes out at once when something has changed, but not sooner than :data:`SHORTEST` after
    a look, and one after :data:`LONGEST` in any case. What cannot be sent is not kept: the next
    event says it all.

    Args:
        read: gives the fields of an event, as they are now.
        connect: gives an outlet; raises when it cannot.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, Any]],
        connect: Callable[[], Outlet],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._outlet = KeptOutlet(
            connect,
            lost="this node's state cannot be told (%s): trying every second",
            again="this node's state is told again",
        )
        self._clock = clock
        # Reentrant: a signal handler may settle inputs while its thread is telling of a change.
        self._wake = threading.Condition(threading.RLock())
        self._changed = True
        self._closed = False
        self._told: dict[str, Any] | None = None
        self._looked_at = self._tried_at = clock() - LONGEST
        self._thread = threading.Thread(target=self._run, name="concurrent-telling", daemon=True)

    def start(self) -> None:
        """Send the first event, and go on."""
        self._thread.start()

    def changed(self) -> None:
        """Something may have changed; from any thread, and cheap where that is known."""
        if not self._changed:
            with self._wake:
                self._changed = True
                self._wake.notify_all()

    def close(self) -> None:
        """Send a last event and end; a broker that is away is not waited for."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def wait(self) -> float:
        """Seconds until there is to be a look; 0 or less for now."""
        due = self._tried_at + LONGEST
        if self._changed and not self._outlet.is_failing:
            due = min(due, self._looked_at + SHORTEST)
        return due - self._clock()

    def look(self, *, last: bool = False) -> None:
        """Send an event, if there is something to tell or it is time."""
        self._changed = False  # before reading: what changes from here on is another change
        self._looked_at = self._clock()
        fields = self._read()
        telling = {name: value for name, value in fields.items() if name not in _PASSING}
        is_time = self._looked_at >= self._tried_at + LONGEST
        if telling == self._told and not (is_time or last):
            return
        self._tried_at = self._looked_at
        if last and not self._outlet.is_open:
            return
        sent = self._outlet.send([(TYPE, {**fields, "ended": True} if last else fields)])
        self._told = telling if sent else None

    def _run(self) -> None:
        while not self._closed:
            with self._wake:
                while not self._closed and (seconds := self.wait()) > 0:
                    self._wake.wait(seconds)
            try:
                self.look(last=self._closed)
            except Exception:  # the node must be seen, whatever it is that could not be read
                logger.exception("reading this node's state failed")
                self._tried_at = self._clock()
        self._outlet.close()


class TellStep(bootsteps.StartStopStep):
    """Has the node tell its state, from before its services load until it has drained."""

    requires = (Pool,)
    label = "Telling"

    def start(self, worker: Any) -> None:
        pool = worker.pool
        if not isinstance(pool, NodePool):
            return
        device = os.environ.get("CUDA_VISIBLE_DEVICES")
        teller = Teller(
            lambda: _fields_of(worker, pool, device),
            lambda: DispatcherOutlet(worker.app, worker.hostname),
        )
        pool.slots.on_change = pool.status.on_change = teller.changed
        pool.on_closed.append(teller.close)
        teller.start()

    def stop(self, worker: Any) -> None:
        """The pool ends it itself, when it has drained: that comes after this."""


def _rate_limited(consumer: Any) -> int:
    """Inputs that wait for their rate limit: Celery reserves them when that lets them pass.

    They are in the buckets of ``Consumer.task_buckets`` (5.6 and 5.7).
    """
    buckets = list(getattr(consumer, "task_buckets", {}).values())
    return sum(len(bucket.contents) for bucket in buckets if bucket is not None)


def _fields_of(worker: Any, pool: NodePool, device: str | None) -> dict[str, Any]:
    slots = pool.slots
    # Before the slots are read: an input that ends meanwhile is in neither, and not in both.
    finished = slots.finished
    node, groups = slots.figures()
    consumer = getattr(worker, "consumer", None)
    lanes = getattr(consumer, "lanes", None)
    return event_fields(
        status=pool.status,
        node=node,
        groups=groups,
        queues=list(worker.app.amqp.queues.consume_from),
        reserved=len(worker_state.reserved_requests)
        - len(worker_state.active_requests)
        - pool.engine.passing.begun
        + _rate_limited(consumer),
        scheduled=sum(lane.eta_held for lane in lanes) if lanes is not None else 0,
        arrived=slots.arrived,
        finished=finished,
        device=device,
        timing=pool.engine.timing.fields(),
        process=process_fields(),
    )
