"""The board: the last words, by who said them, and what they come to.

What always holds, under the one lock here: what has been silent for too long is forgotten, also
when nobody speaks any more, so that a board is as large as what lives, whatever is said to it;
and there is room for so many nodes and fleets only.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from celery_concurrent.board.fields import mapping_of
from celery_concurrent.board.history import COARSE, FINE, History, Sample
from celery_concurrent.board.merging import together
from celery_concurrent.board.words import (
    AUTOSCALER,
    FLEET,
    NODE,
    AutoscalerWord,
    FleetWord,
    NodeWord,
    node_of_engine,
)

#: Seconds after which a node, or an autoscaler, that said nothing counts as silent.
NODE_SILENT: Final = 5.0
AUTOSCALER_SILENT: Final = 15.0
#: Seconds after which it is forgotten.
NODE_FORGOTTEN: Final = 60.0
AUTOSCALER_FORGOTTEN: Final = 300.0
#: How many there is room for.
MOST_NODES: Final = 20_000
MOST_FLEETS: Final = 2_000
MOST_AUTOSCALERS: Final = 1_000
#: Seconds between two looks for what is to be forgotten.
_TIDY_EVERY: Final = 5.0
#: Fields of a fleet that a list of many leaves out.
_DETAILS: Final = frozenset({"decisions", "last_lines"})


class Board:
    """Fed by one thread, or several; asked by any.

    Args:
        clock: monotonic seconds.
        wall: seconds since the epoch, for people.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.RLock()
        self._nodes: dict[str, NodeWord] = {}
        #: By queue, and there by autoscaler.
        self._fleets: dict[str, dict[str, FleetWord]] = {}
        self._autoscalers: dict[str, AutoscalerWord] = {}
        #: Nodes that their autoscaler tells of no more, and since when: a word may be under way.
        self._buried: dict[str, float] = {}
        self._histories: dict[str, History] = {}
        self._sampled_at: dict[str, float] = {}
        self._tidied_at = clock()

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event; of one that is none of ours, or is not well formed, nothing stays."""
        kind = event.get("type")
        if kind not in (NODE, FLEET, AUTOSCALER):
            return
        with self._lock:
            now = self._tidied()
            if kind == NODE:
                self._note_node(event, now)
            elif kind == FLEET:
                self._note_fleet(event, now)
            else:
                said = AutoscalerWord.of(event, now)
                if said is not None and (
                    said.name in self._autoscalers or len(self._autoscalers) < MOST_AUTOSCALERS
                ):
                    self._autoscalers[said.name] = said

    def fleets(self) -> list[dict[str, Any]]:
        """All fleets by queue, in short."""
        with self._lock:
            self._tidied()
            by_queue = self._names_by_queue()
            return [
                {name: value for name, value in fleet.items() if name not in _DETAILS}
                for queue in sorted({*self._fleets, *by_queue})
                if (fleet := self._fleet(queue, by_queue.get(queue, ()))) is not None
            ]

    def fleet(self, queue: str) -> dict[str, Any] | None:
        """One fleet with its nodes; None for a queue of which nobody has said anything."""
        with self._lock:
            self._tidied()
            names = self._names_by_queue(queue).get(queue, ())
            fleet = self._fleet(queue, names)
            if fleet is None:
                return None
            return {**fleet, "nodes": [self._node(name) for name in sorted(names)]}

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes by name."""
        with self._lock:
            self._tidied()
            names = {name for names in self._names_by_queue().values() for name in names}
            return [self._node(name) for name in sorted({*names, *self._nodes})]

    def node(self, name: str) -> dict[str, Any] | None:
        """One node; None for one of which nobody has said anything."""
        with self._lock:
            self._tidied()
            if name not in self._nodes and self._keeper_of(name) is None:
                return None
            return self._node(name)

    def autoscalers(self) -> list[dict[str, Any]]:
        """Those that have spoken lately."""
        with self._lock:
            now = self._tidied()
            return [
                {**word.told, "silent": now - word.heard_at > AUTOSCALER_SILENT}
                for _, word in sorted(self._autoscalers.items())
            ]

    def history(self, queue: str, seconds: float) -> dict[str, list[Any]]:
        """A fleet's last seconds in columns, the oldest first; see :class:`Sample` for them.

        Args:
            queue: of the fleet.
            seconds: up to 300 by the second; up to 3,600 in tens of seconds, of each the peaks.
        """
        with self._lock:
            history = self._histories.get(queue)
            samples = [] if history is None else history.last(seconds)
        return {
            name: [sample[place] for sample in samples] for place, name in enumerate(Sample._fields)
        }

    def memory(self, queue: str) -> dict[str, Any]:
        """A fleet's history as :meth:`recall` takes it, for a board that begins to listen."""
        return {"fine": self.history(queue, FINE), "coarse": self.history(queue, COARSE)}

    def recall(self, queue: str, memory: Mapping[str, Any]) -> None:
        """Take what another board has kept of a fleet, from before this one began to listen."""
        fine, coarse = (Sample.all_of(mapping_of(memory.get(name))) for name in ("fine", "coarse"))
        with self._lock:
            if queue in self._histories:
                self._histories[queue].recall(fine, coarse)

    # -- what is said, with the lock held

    def _note_node(self, event: Mapping[str, Any], now: float) -> None:
        name = event.get("hostname")
        before = self._nodes.get(name) if isinstance(name, str) else None
        said = NodeWord.of(event, now, before)
        if said is None or (before is None and len(self._nodes) >= MOST_NODES):
            return
        if said.name in self._buried:
            return
        if said.ended:
            self._nodes.pop(said.name, None)
            return
        self._nodes[said.name] = said
        for queue in said.queues:
            if queue not in self._fleets and now >= self._sampled_at.get(queue, 0.0) + 1.0:
                self._sample(queue, now)

    def _note_fleet(self, event: Mapping[str, Any], now: float) -> None:
        said = FleetWord.of(event, now)
        if said is None or (said.queue not in self._fleets and len(self._fleets) >= MOST_FLEETS):
            return
        words = self._fleets.setdefault(said.queue, {})
        before = words.get(said.autoscaler)
        if before is None and len(words) >= MOST_AUTOSCALERS:
            return
        words[said.autoscaler] = said
        if before is not None:
            # Gone, says who started them; their last word would stay for a minute.
            for name in before.nodes.keys() - said.nodes.keys():
                self._nodes.pop(name, None)
                if len(self._buried) < MOST_NODES:
                    self._buried[name] = now
        for name in self._buried.keys() & said.nodes.keys():
            del self._buried[name]
        self._sample(said.queue, now)

    def _sample(self, queue: str, now: float) -> None:
        if queue not in self._histories and len(self._histories) >= MOST_FLEETS:
            return
        self._sampled_at[queue] = now
        fleet = self._fleet(queue, self._names_by_queue(queue).get(queue, ()))
        if fleet is None:
            return
        counts = fleet["counts"]
        live = counts["starting"] + counts["ready"]
        self._histories.setdefault(queue, History()).add(
            Sample(
                at=self._wall(),
                backlog=fleet["backlog"],
                reserved=fleet["reserved"],
                running=fleet["running"],
                starting=counts["starting"],
                ready=counts["ready"],
                draining=counts["draining"],
                target=fleet["target_inputs"] * live,
                most=fleet["max_inputs"] * live,
            )
        )

    def _tidied(self) -> float:
        """The time, once what is to be forgotten by now has been."""
        now = self._clock()
        if now >= self._tidied_at + _TIDY_EVERY:
            self._tidied_at = now
            self._tidy(now)
        return now

    def _tidy(self, now: float) -> None:
        _forget(self._nodes, now - NODE_FORGOTTEN)
        for name in [name for name, at in self._buried.items() if at < now - NODE_FORGOTTEN]:
            del self._buried[name]
        _forget(self._autoscalers, now - AUTOSCALER_FORGOTTEN)
        for queue, words in list(self._fleets.items()):
            _forget(words, now - AUTOSCALER_FORGOTTEN)
            if not words:
                del self._fleets[queue]
        for queue, at in list(self._sampled_at.items()):
            if at < now - 3600.0:
                del self._sampled_at[queue]
                self._histories.pop(queue, None)

    # -- what it comes to, with the lock held

    def _names_by_queue(self, only: str | None = None) -> dict[str, set[str]]:
        """The nodes of each queue, or of one: those its autoscaler keeps, and others of it."""
        fleets = self._fleets if only is None else {only: self._fleets.get(only, {})}
        by_queue: defaultdict[str, set[str]] = defaultdict(set)
        for queue, words in fleets.items():
            for said in words.values():
                by_queue[queue].update(said.nodes)
        for name, word in self._nodes.items():
            for queue in word.queues:
                if only is None or queue == only:
                    by_queue[queue].add(name)
        return by_queue

    def _fleet(self, queue: str, names: Iterable[str]) -> dict[str, Any] | None:
        said = [word for _, word in sorted(self._fleets.get(queue, {}).items())]
        names = list(names)
        now = self._clock()
        # What one that is silent said is old; where all are, it is all there is.
        if said:
            heard = [word for word in said if now - word.heard_at <= AUTOSCALER_SILENT]
            shown, is_silent = together(heard or said), not heard
        else:
            words = [self._nodes[name] for name in names if name in self._nodes]
            if not words:
                return None
            living = [word for word in words if now - word.heard_at <= NODE_SILENT]
            shown, is_silent = _unkept(queue, living or words), not living
        return {**shown, "kept": bool(said), "silent": is_silent, "node_count": len(names)}

    def _node(self, name: str) -> dict[str, Any]:
        word, keeper = self._nodes.get(name), self._keeper_of(name)
        entry: Mapping[str, Any] = {} if keeper is None else keeper.nodes[name]
        if word is not None:
            shown, silent = dict(word.told), self._clock() - word.heard_at > NODE_SILENT
        else:
            assert keeper is not None, "a node is known by its own word or by its keeper's"
            shown, silent = node_of_engine(entry, keeper.queue), False
        if entry.get("state") == "draining":
            # Told to, and not aware of it yet.
            shown["state"] = "draining"
        told = {device["uuid"] for device in shown["devices"]}
        pinned = [uuid for uuid in entry.get("devices") or () if isinstance(uuid, str)]
        shown["devices"] = [
            *shown["devices"],
            *({"uuid": uuid, **_UNKNOWN_DEVICE} for uuid in pinned if uuid not in told),
        ]
        return {
            **shown,
            "kept": keeper is not None,
            "adopted": entry.get("adopted") is True,
            "cpu": None if word is None else word.cpu_share,
            "silent": silent and shown["state"] != "starting",
        }

    def _keeper_of(self, name: str) -> FleetWord | None:
        word = self._nodes.get(name)
        queues = self._fleets if word is None else word.queues
        for queue in queues:
            for said in self._fleets.get(queue, {}).values():
                if name in said.nodes:
                    return said
        return None


_UNKNOWN_DEVICE: Final = {"name": None, "free": None, "total": None, "utilisation": None}


def _unkept(queue: str, words: list[NodeWord]) -> dict[str, Any]:
    """A fleet that somebody has started by hand: what its nodes come to."""
    states = [word.told["state"] for word in words]
    slots = [word.told["slots"] or 0 for word in words]
    targets = [word.told["target"] or 0 for word in words]
    return {
        "queue": queue,
        "state": "unkept",
        "tasks": sorted({group for word in words for group in word.told["tasks"]}),
        "target_inputs": max(targets),
        "max_inputs": max(slots),
        "knobs": {},
        "overrides": {},
        "demand": None,
        "backlog": None,
        "reserved": sum(word.told["reserved"] for word in words),
        "running": sum(word.told["running"] for word in words),
        "desired": 0,
        "min_nodes": None,
        "max_nodes": None,
        "reason": "",
        "counts": {state: states.count(state) for state in ("starting", "ready", "draining")},
        "crashes": 0,
        "missing": None,
        "last_lines": [],
        "decisions": [],
    }


def _forget(words: dict[str, Any], oldest: float) -> None:
    for name in [name for name, word in words.items() if word.heard_at < oldest]:
        del words[name]
