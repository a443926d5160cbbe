"""What the nodes say of themselves, as ``concurrency-node`` events bring it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

#: Seconds after which a node that said nothing counts as silent: it speaks every second.
SILENT_AFTER = 5.0
#: Seconds after which it is forgotten, if it is none of the engine's.
FORGOTTEN_AFTER = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A node's last word.

    Args:
        node: Celery's node name, ``name@host``.
        state: "starting", "ready" or "draining".
        since: when that state was first heard of, on this process's monotonic clock.
        heard_at: when the last word came, on the same clock.
        running: inputs in slots.
        reserved: inputs that it holds and that do not run yet, those with an ETA apart.
        slots: how many could run at once.
        finished: inputs that have ended since its start.
        note: a sentence for people, such as why it runs fewer inputs; None for none.
        ended: whether it has said that there will be no other word.
    """

    node: str
    state: str
    since: float
    heard_at: float
    running: int = 0
    reserved: int = 0
    slots: int = 0
    finished: int = 0
    note: str | None = None
    ended: bool = False

    def is_silent(self, now: float) -> bool:
        """Whether it should have spoken long ago."""
        return now - self.heard_at > SILENT_AFTER


class Reports:
    """The last word of every node; events are noted by one thread and read by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_node: dict[str, Report] = {}

    def note(self, event: Mapping[str, Any], now: float) -> Report | None:
        """Take an event's fields, heard at ``now``; None, and no trace, for one that is none."""
        node, state = event.get("hostname"), event.get("state")
        if not isinstance(node, str) or state not in ("starting", "ready", "draining"):
            return None
        with self._lock:
            last = self._by_node.get(node)
            report = Report(
                node=node,
                state=state,
                since=last.since if last is not None and last.state == state else now,
                heard_at=now,
                running=_count(event, "running"),
                reserved=_count(event, "reserved"),
                slots=_count(event, "slots"),
                finished=_count(event, "finished"),
                note=_text(event.get("note")),
                ended=event.get("ended") is True,
            )
            self._by_node[node] = report
            return report

    def forget(self, node: str) -> None:
        """It has ended."""
        with self._lock:
            self._by_node.pop(node, None)

    def forget_others(self, nodes: Collection[str], now: float) -> None:
        """Of nodes that are none of these, keep the words of a minute; none of one that has ended.

        All that use the broker are heard: those of other hosts and apps, too, and last words that
        come when their node is forgotten.
        """
        oldest = now - FORGOTTEN_AFTER
        with self._lock:
            self._by_node = {
                node: report
                for node, report in self._by_node.items()
                if node in nodes or not (report.ended or report.heard_at < oldest)
            }

    def of(self, node: str) -> Report | None:
        """The last word of one."""
        with self._lock:
            return self._by_node.get(node)

    def all(self) -> dict[str, Report]:
        """By node, the silent ones too."""
        with self._lock:
            return dict(self._by_node)


def _count(event: Mapping[str, Any], name: str) -> int:
    value = event.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
