"""Cumulative figures that outlive nodes: what Prometheus calls counters and histograms.

A node counts since its own start and tells the sums; here the difference to its word before is
added to totals, so that nothing has to be kept of a node that has ended. What always holds: a
total never falls, and no input counts twice. So of a node, or an autoscaler, that began before
there was anybody to hear it, only what follows counts: after a restart of this process, Prometheus
sees counters begin at 0 and goes on from there, where the old sums would look like new inputs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from celery_concurrent.board.fields import count_of, maybe_count, name_of, names_of
from celery_concurrent.board.words import FLEET, NODE
from celery_concurrent.metrics.telling import (
    EMPTY,
    QUEUES_OF_NODE,
    TASKS_OF_NODE,
    Account,
    accounts_of,
    counts_of,
    seconds_of,
)
from celery_concurrent.metrics.totals import (
    MOST_KINDS,
    QueueTotals,
    Room,
    TaskTotals,
    add_counts,
)

#: Seconds between two words of a node for which its slots count as idle, at the most.
LONGEST_GAP: Final = 5.0
#: Seconds of silence after which a node is forgotten; until then it may go on as the same.
FORGOTTEN_AFTER: Final = 3600.0
#: Causes of decisions, each counted from 0.
CAUSES: Final = ("demand", "unneeded", "drained", "knobs", "unknown")
#: Seconds by which an event may have been on its way, so that its node seems to be younger.
_DELAY: Final = 5.0
#: More slots than any node has.
_MOST_SLOTS: Final = 100_000
#: Autoscalers' fleets whose decisions are told apart.
_MOST_DECIDED: Final = 5_000


@dataclass(slots=True, kw_only=True)
class _Heard:
    """One run of a node, as its last word left it.

    Args:
        born: when it began, on the tally's clock; None when it does not tell its age.
        age: as it told last, in seconds.
        heard_at: on the tally's clock.
        is_old: whether what it tells first was counted before, or by nobody.
        has_started: whether it was heard ready.
    """

    born: float | None
    heard_at: float
    is_old: bool
    age: float | None = None
    accounts: dict[str, Account] = field(default_factory=dict)
    idle_slots: int = 0
    queues: list[str] = field(default_factory=list)
    has_started: bool = False


class Tally:
    """Fed with events by one thread, or several; asked by any.

    Args:
        clock: monotonic seconds.
        most_nodes: nodes that are told apart; beyond them the longest silent is forgotten.
        most_accounts: the same for all tasks of all nodes.
        most_names: tasks, and queues, with totals of their own; the others share theirs.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_nodes: int = 5_000,
        most_accounts: int = 50_000,
        most_names: int = 1_000,
    ) -> None:
        self._clock = clock
        self._most_nodes = most_nodes
        self._most_accounts = most_accounts
        self._lock = threading.Lock()
        self._tasks = Room(TaskTotals, most_names)
        self._queues = Room(QueueTotals, most_names)
        #: By name and process id, the longest silent first.
        self._nodes: dict[tuple[str, int | None], _Heard] = {}
        self._accounts = 0
        self._began = clock()
        #: Before this a node that was forgotten has begun; one that comes back has, too.
        self._forgotten_born = float("-inf")
        self._decided: dict[tuple[str, int | None, str], dict[str, int]] = {}
        self._has_forgotten_decided = False

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event; of one that is none of ours, or is not well formed, nothing stays."""
        kind = event.get("type")
        if kind == NODE:
            with self._lock:
                self._note_node(event, self._clock())
        elif kind == FLEET:
            with self._lock:
                self._note_fleet(event, self._clock())

    def tasks(self) -> dict[str, TaskTotals]:
        """The totals of each task, as they are now."""
        with self._lock:
            return {name: totals.copy() for name, totals in self._tasks.all.items()}

    def queues(self) -> dict[str, QueueTotals]:
        """The totals of each queue, as they are now."""
        with self._lock:
            return {name: totals.copy() for name, totals in self._queues.all.items()}

    # -- nodes, with the lock held

    def _note_node(self, event: Mapping[str, Any], now: float) -> None:
        name, state = name_of(event.get("hostname")), event.get("state")
        if name is None or state not in ("starting", "ready", "draining"):
            return
        key, age = (name, maybe_count(event.get("pid"))), seconds_of(event.get("age"))
        node = self._run_of(key, age, now)
        self._count_idle(node, now)
        self._count_inputs(node, event)
        node.heard_at, node.age = now, age
        node.queues = names_of(event.get("queues"))[:QUEUES_OF_NODE]
        slots = min(count_of(event.get("slots")), _MOST_SLOTS) if state == "ready" else 0
        node.idle_slots = max(0, slots - count_of(event.get("running")))
        for queue in node.queues:
            self._queues.of(queue)
        if state == "ready" and not node.has_started:
            node.has_started = True
            self._count_start(node, seconds_of(event.get("state_age")))
        if event.get("ended") is True:
            self._accounts -= len(node.accounts)
            return
        self._nodes[key] = node
        self._make_room(now)

    def _run_of(self, key: tuple[str, int | None], age: float | None, now: float) -> _Heard:
        """The run of the node that speaks, taken out: who spoke last is put in last."""
        born = None if age is None else now - age
        node = self._nodes.pop(key, None)
        if node is None:
            is_old = born is None or born < max(self._began, self._forgotten_born)
            return _Heard(born=born, heard_at=now, is_old=is_old)
        if age is None or node.age is None or age >= node.age:
            return node
        # Another one with the same process id, as the first process of a container has.
        self._accounts -= len(node.accounts)
        return _Heard(born=born, heard_at=now, is_old=False)

    def _count_inputs(self, node: _Heard, event: Mapping[str, Any]) -> None:
        timing, outcomes = event.get("timing"), event.get("outcomes")
        changed = accounts_of(timing, outcomes, node.accounts)
        if changed is None:
            # It counts from 0 again, so it is another one.
            self._accounts -= len(node.accounts)
            node.accounts = {}
            changed = accounts_of(timing, outcomes, node.accounts) or {}
        for task, account in changed.items():
            last = node.accounts.get(task)
            if last is None:
                if len(node.accounts) >= TASKS_OF_NODE:
                    continue
                self._accounts += 1
            totals = self._tasks.of(task)
            if not node.is_old:
                totals.add(account, last or EMPTY)
            node.accounts[task] = account
        node.is_old = False

    def _count_idle(self, node: _Heard, now: float) -> None:
        if not node.idle_slots:
            return
        seconds = min(now - node.heard_at, LONGEST_GAP)
        for queue in node.queues:
            self._queues.of(queue).idle += node.idle_slots * seconds

    def _count_start(self, node: _Heard, ready_for: float | None) -> None:
        if node.age is None or ready_for is None or ready_for > node.age:
            return
        # Once for each: also for one that was ready before there was anybody to hear it.
        if node.born is not None and node.born < self._forgotten_born:
            return
        for queue in node.queues:
            self._queues.of(queue).startup.observe(node.age - ready_for)

    def _make_room(self, now: float) -> None:
        while self._nodes:
            key, first = next(iter(self._nodes.items()))
            is_full = len(self._nodes) > self._most_nodes or self._accounts > self._most_accounts
            if not (is_full or first.heard_at < now - FORGOTTEN_AFTER):
                return
            del self._nodes[key]
            self._accounts -= len(first.accounts)
            # Of one that tells no age nothing was counted but what followed its first word.
            if first.born is not None:
                self._forgotten_born = max(self._forgotten_born, first.born + _DELAY)

    # -- fleets, with the lock held

    def _note_fleet(self, event: Mapping[str, Any], now: float) -> None:
        queue, name = name_of(event.get("queue")), name_of(event.get("hostname"))
        if queue is None or name is None:
            return
        for task in names_of(event.get("tasks"))[:TASKS_OF_NODE]:
            self._tasks.of(task)
        decisions = self._queues.of(queue).decisions
        for cause in CAUSES:
            decisions.setdefault(cause, 0)
        if not isinstance(event.get("decided"), dict):
            return
        told = counts_of(event["decided"], MOST_KINDS)
        key = (name, maybe_count(event.get("pid")), queue)
        before = self._decided.pop(key, None)
        if before is None:
            age = seconds_of(event.get("age"))
            is_old = age is None or now - age < self._began
            before = told if is_old or self._has_forgotten_decided else {}
        elif any(told.get(cause, 0) < count for cause, count in before.items()):
            before = {}
        add_counts(decisions, told, before)
        self._decided[key] = told
        if len(self._decided) > _MOST_DECIDED:
            del self._decided[next(iter(self._decided))]
            self._has_forgotten_decided = True
