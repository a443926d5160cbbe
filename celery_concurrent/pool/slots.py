"""Who may run: the slots of a node, by the groups of tasks that share them.

What always holds, under the one lock here:

- nothing starts in a group that has ``allowed`` inputs running, or in a node that has ``cap``;
- ``limit`` is what the node's user has set, ``ceiling`` what the node itself has had to do below
  it: neither changes the other;
- an input is in exactly one place: waiting in its group, or holding a slot;
- a slot that comes back goes to the longest waiting input of the groups that have room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from celery_concurrent.limits import Limits, shares

#: The group of all tasks without @concurrent.
PLAIN = "(plain tasks)"


class Holder(Protocol):
    """What holds a slot: an input knows the group that it belongs to."""

    group: str


H = TypeVar("H", bound=Holder)


@dataclass(slots=True)
class Group(Generic[H]):
    """The slots that one function, or all methods of one service, share in this node.

    Args:
        name: the task's or service's name.
        most: max_inputs, above which ``limit`` never rises; None for plain tasks.
        target: what the autoscaler aims at.
        limit: how many run at once.
        ceiling: below which it stays for a while, whatever the limit; None for none.
    """

    name: str
    most: int | None
    target: int
    limit: int
    running: int = 0
    waiting: deque[H] = field(default_factory=deque)
    ceiling: int | None = None

    def __str__(self) -> str:
        most = "" if self.most is None else f", max_inputs {self.most}"
        target = min(self.target, self.allowed)
        return f"{self.name}: {self.running} of {self.allowed} taken, target {target}{most}"

    @property
    def allowed(self) -> int:
        """How many run at once at the most now."""
        return self.limit if self.ceiling is None else min(self.limit, self.ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How a group, or a whole node, stands at one instant.

    Args:
        slots: how many run at once at the most.
        target: what the autoscaler aims at; never above ``slots``.
        running: inputs that hold a slot.
        reserved: inputs that wait for one.
    """

    slots: int
    target: int
    running: int
    reserved: int


class Slots(Generic[H]):
    """The slots of one node.

    Args:
        limits: max_inputs and target_inputs by group.
        plain: slots of the tasks without @concurrent.
        cap: the most inputs that run at once in the node, None for the sum of the slots.
        counted: the groups whose queues the node consumes; the others get the slots they
            name as well, but do not count as the node's size.
    """

    def __init__(
        self,
        limits: Mapping[str, Limits],
        *,
        plain: int,
        cap: int | None,
        counted: Iterable[str],
    ) -> None:
        # Reentrant: Celery's cold stop settles inputs in a signal handler, which may come in the
        # midst of what its own thread does here (5.6 and 5.7). Nothing starts any more by then.
        self._lock = threading.RLock()
        self.groups: dict[str, Group[H]] = {
            name: Group(name, own.max_inputs, own.target, own.max_inputs)
            for name, own in limits.items()
        }
        self.groups[PLAIN] = Group(PLAIN, None, plain, plain)
        self.counted = [name for name in self.groups if name in set(counted)] or [PLAIN]
        self.cap = cap
        self.running = 0
        #: Inputs so far: those that asked for a slot, and those that gave it back.
        self.arrived = self.finished = 0
        #: Called from any thread, outside of the lock, when figures may have changed.
        self.on_change: Callable[[], None] = _nobody_asks
        for name, limit in shares(cap, {n: self.groups[n].limit for n in self.counted}).items():
            self.groups[name].limit = limit

    @property
    def total(self) -> int:
        """How many inputs run at once at the most now."""
        return self._capped(sum(self.groups[name].allowed for name in self.counted))

    @property
    def size(self) -> int:
        """The same without ceilings: what the node was given."""
        return self._capped(sum(self.groups[name].limit for name in self.counted))

    def take(self, holder: H) -> bool:
        """Give the holder a slot; False puts it in line for one."""
        with self._lock:
            group = self.groups[holder.group]
            self.arrived += 1
            has_room = not group.waiting and self._has_room(group)
            if has_room:
                self._occupy(group)
            else:
                group.waiting.append(holder)
        self.on_change()
        return has_room

    def give_back(self, holder: H) -> list[H]:
        """Take the holder's slot back; returns those that hold one now and may start."""
        with self._lock:
            group = self.groups[holder.group]
            self._vacate(group)
            self.finished += 1
            admitted = self._admit(group)
        self.on_change()
        return admitted

    def has_line(self, name: str) -> bool:
        """Whether somebody waits in this group: a glance, without the lock."""
        return bool(self.groups[name].waiting)

    def pass_on(self, holder: H, may_follow: Callable[[H], bool]) -> H | None:
        """Give the holder's slot to the first in its group's line, as :meth:`give_back` would.

        Args:
            holder: who has ended.
            may_follow: asked, under the lock, of who would have it.

        Returns None, and changes nothing, where nobody waits, may follow, or has room.
        """
        with self._lock:
            group = self.groups[holder.group]
            if not group.waiting or not may_follow(group.waiting[0]):
                return None
            self._vacate(group)
            has_room = self._has_room(group)
            self._occupy(group)  # as before; by whom, is not counted
            if not has_room:
                return None
            self.finished += 1
            following = group.waiting.popleft()
        self.on_change()
        return following

    def first_in_line(self, name: str) -> H | None:
        """Who has waited longest in this group."""
        with self._lock:
            waiting = self.groups[name].waiting
            return waiting[0] if waiting else None

    def withdraw(self, name: str, most: int, may_leave: Callable[[H], bool]) -> list[H]:
        """Take out of a group's line the last who may leave it, at most so many, in their order."""
        with self._lock:
            group = self.groups[name]
            leaving: deque[H] = deque()
            staying: deque[H] = deque()
            while group.waiting and len(leaving) < most:
                holder = group.waiting.pop()
                (leaving if may_leave(holder) else staying).appendleft(holder)
            group.waiting.extend(staying)
        self.on_change()
        return list(leaving)

    def forget_waiting(self) -> list[H]:
        """Empty the lines, and return who stood in them."""
        with self._lock:
            waiting = [holder for group in self.groups.values() for holder in group.waiting]
            for group in self.groups.values():
                group.waiting.clear()
        self.on_change()
        return waiting

    def set_limit(self, name: str, limit: int) -> list[H]:
        """Change a group's limit; what runs above a lower one runs on.

        Returns those that may start under a higher one.
        """
        with self._lock:
            self.groups[name].limit = limit
            if self.cap is not None:
                self.cap = max(self.cap, limit)
            admitted = self._admit(self.groups[name])
        self.on_change()
        return admitted

    def hold(self, ceilings: Mapping[str, int]) -> list[H]:
        """Keep these groups to their ceilings, and the others to none.

        What runs above one runs on. Returns those that may start where one was lifted.
        """
        with self._lock:
            for name, group in self.groups.items():
                group.ceiling = ceilings.get(name)
            admitted = self._admit(*self.groups.values())
        self.on_change()
        return admitted

    def resize(self, total: int) -> list[H]:
        """Set the node's size, shared out among its groups; returns those that may start.

        Above the sum of all max_inputs only plain tasks get more slots.
        """
        with self._lock:
            own = {name: self._most(name) for name in self.counted}
            if PLAIN in own:
                own[PLAIN] = max(own[PLAIN], total - sum(own.values()) + own[PLAIN])
            for name, limit in shares(total, own).items():
                self.groups[name].limit = limit
            self.cap = total
            admitted = self._admit(*self.groups.values())
        self.on_change()
        return admitted

    def count(self, groups: Iterable[str]) -> None:
        """Let these groups count as well."""
        with self._lock:
            new = [name for name in groups if name in self.groups and name not in self.counted]
            self.counted = [*self.counted, *new]
        self.on_change()

    def figures(self) -> tuple[Figures, dict[str, Figures]]:
        """Those of the node, and by group: those that count, and others that hold inputs."""
        with self._lock:
            groups = {
                name: Figures(
                    slots=group.allowed,
                    target=min(group.target, group.allowed),
                    running=group.running,
                    reserved=len(group.waiting),
                )
                for name, group in self.groups.items()
                if name in self.counted or group.running or group.waiting
            }
            total = self.total
            target = sum(groups[name].target for name in self.counted)
            node = Figures(
                slots=total,
                target=min(target, total),
                running=self.running,
                reserved=sum(group.reserved for group in groups.values()),
            )
        return node, groups

    @property
    def largest(self) -> int | None:
        """The size above which :meth:`resize` has no effect; None where there is none."""
        if PLAIN in self.counted:
            return None
        return sum(self._most(name) for name in self.counted)

    @property
    def is_oversubscribed(self) -> bool:
        """Whether the cap is less than the groups' slots together: they wait for each other."""
        # Asked of each group at each turn of the hub: without a cap there is nothing to add up.
        return self.cap is not None and self.cap < sum(
            self.groups[name].allowed for name in self.counted
        )

    def _capped(self, total: int) -> int:
        return total if self.cap is None else min(total, self.cap)

    def _most(self, name: str) -> int:
        group = self.groups[name]
        return group.limit if group.most is None else group.most

    def _admit(self, first: Group[H], *others: Group[H]) -> list[H]:
        admitted = []
        # The group whose slot came back first: under a cap another may profit from it too.
        for group in (first, *(others or self.groups.values())):
            while group.waiting and self._has_room(group):
                self._occupy(group)
                admitted.append(group.waiting.popleft())
        return admitted

    def _has_room(self, group: Group[H]) -> bool:
        return group.running < group.allowed and (self.cap is None or self.running < self.cap)

    def _occupy(self, group: Group[H]) -> None:
        group.running += 1
        self.running += 1

    def _vacate(self, group: Group[H]) -> None:
        group.running -= 1
        self.running -= 1


def _nobody_asks() -> None:
    """Until somebody wants to know of changes."""
