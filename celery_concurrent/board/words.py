"""The last words of nodes, fleets and autoscalers, as they are kept: checked, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from celery_concurrent.board.fields import (
    count_of,
    mapping_of,
    mappings_of,
    maybe_count,
    name_of,
    names_of,
    number_of,
    scalars_of,
    text_of,
)

#: The types of the events.
NODE: Final = "concurrency-node"
FLEET: Final = "concurrency-fleet"
AUTOSCALER: Final = "concurrency-autoscaler"

_STATES: Final = ("starting", "ready", "draining")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWord:
    """What a node said last.

    Args:
        name: Celery's, ``name@host``.
        heard_at: on the board's monotonic clock.
        ended: whether it was its very last word.
        cpu_share: of a core, between its last two words; None while that is unknown.
        told: its figures, ready to be shown.
    """

    name: str
    heard_at: float
    ended: bool
    cpu: float | None
    cpu_share: float | None
    queues: tuple[str, ...]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, event: Mapping[str, Any], now: float, before: NodeWord | None) -> NodeWord | None:
        """None for an event that is none of a node."""
        name, state = name_of(event.get("hostname")), event.get("state")
        if name is None or state not in _STATES:
            return None
        cpu, pid = number_of(event.get("cpu")), maybe_count(event.get("pid"))
        queues = names_of(event.get("queues"))
        return cls(
            name=name,
            heard_at=now,
            ended=event.get("ended") is True,
            cpu=cpu,
            cpu_share=_share(cpu, pid, now, before),
            queues=tuple(queues),
            told={
                "name": name,
                "host": name.rpartition("@")[2],
                "queues": queues,
                "state": state,
                "seconds": number_of(event.get("state_age")) or 0.0,
                "age": number_of(event.get("age")),
                "running": count_of(event.get("running")),
                "reserved": count_of(event.get("reserved")),
                "scheduled": count_of(event.get("scheduled")),
                "slots": maybe_count(event.get("slots")),
                "target": maybe_count(event.get("target")),
                "tasks": {
                    group: slots_of(told) for group, told in mapping_of(event.get("tasks")).items()
                },
                "pid": pid,
                "devices": devices_of(event.get("devices")),
                "rss": maybe_count(event.get("rss")),
                "last_input": _last_input(event.get("last_input")),
                "note": text_of(event.get("note")),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetWord:
    """What an autoscaler said last of one of its fleets.

    Args:
        queue: of the fleet.
        autoscaler: who said it.
        heard_at: on the board's monotonic clock.
        told: all but its nodes, ready to be shown.
        nodes: as the autoscaler sees them, by name.
    """

    queue: str
    autoscaler: str
    heard_at: float
    told: Mapping[str, Any]
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The autoscaler's."""
        return self.autoscaler.rpartition("@")[2]

    @classmethod
    def of(cls, event: Mapping[str, Any], now: float) -> FleetWord | None:
        """None for an event that is none of a fleet."""
        queue, autoscaler = name_of(event.get("queue")), name_of(event.get("hostname"))
        if queue is None or autoscaler is None:
            return None
        counts, knobs = mapping_of(event.get("counts")), mapping_of(event.get("knobs"))
        return cls(
            queue=queue,
            autoscaler=autoscaler,
            heard_at=now,
            told={
                "queue": queue,
                "state": text_of(event.get("state")) or "unknown",
                "tasks": names_of(event.get("tasks")),
                "target_inputs": count_of(event.get("target_inputs")),
                "max_inputs": count_of(event.get("max_inputs")),
                "knobs": scalars_of(event.get("knobs")),
                "overrides": scalars_of(event.get("overrides")),
                "demand": maybe_count(event.get("demand")),
                "backlog": maybe_count(event.get("backlog")),
                "reserved": count_of(event.get("reserved")),
                "running": count_of(event.get("running")),
                "desired": count_of(event.get("desired")),
                "min_nodes": maybe_count(knobs.get("min_nodes")),
                "max_nodes": maybe_count(knobs.get("max_nodes")),
                "reason": text_of(event.get("reason")) or "",
                "counts": {state: count_of(counts.get(state)) for state in _STATES},
                "crashes": count_of(event.get("crashes")),
                "missing": text_of(event.get("missing")),
                "last_lines": _lines(event.get("last_lines")),
                "decisions": [_decision(each) for each in mappings_of(event.get("decisions"))],
            },
            nodes={
                name: each
                for each in mappings_of(event.get("nodes"))
                if (name := name_of(each.get("name"))) is not None
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerWord:
    """What an autoscaler said last of itself."""

    name: str
    heard_at: float
    told: Mapping[str, Any]

    @classmethod
    def of(cls, event: Mapping[str, Any], now: float) -> AutoscalerWord | None:
        """None for an event that is none of an autoscaler."""
        name = name_of(event.get("hostname"))
        if name is None:
            return None
        return cls(
            name=name,
            heard_at=now,
            told={
                "name": name,
                "host": name_of(event.get("host")) or name.rpartition("@")[2],
                "pid": maybe_count(event.get("pid")),
                "queues": names_of(event.get("queues")),
                "devices": [_host_device(each) for each in mappings_of(event.get("devices"))],
            },
        )


def node_of_engine(entry: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """A node that has not spoken, as its autoscaler sees it."""
    name = str(entry["name"])
    state = entry.get("state")
    return {
        "name": name,
        "host": name.rpartition("@")[2],
        "queues": [queue],
        "state": state if state in _STATES else "starting",
        "seconds": number_of(entry.get("seconds")) or 0.0,
        "age": None,
        "running": count_of(entry.get("running")),
        "reserved": count_of(entry.get("reserved")),
        "scheduled": 0,
        "slots": maybe_count(entry.get("slots")),
        "target": None,
        "tasks": {},
        "pid": maybe_count(entry.get("pid")),
        "devices": [],
        "rss": None,
        "last_input": None,
        "note": text_of(entry.get("note")),
    }


def slots_of(value: object) -> dict[str, int]:
    """The slots of a function or service."""
    told = mapping_of(value)
    return {name: count_of(told.get(name)) for name in ("slots", "target", "running", "reserved")}


def devices_of(value: object) -> list[dict[str, Any]]:
    """The devices that a node tells of, in the order of their names."""
    return [
        {"uuid": uuid, **_device(mapping_of(told))}
        for uuid, told in sorted(mapping_of(value).items())
    ]


def _host_device(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uuid": name_of(told.get("uuid")) or "unknown",
        **_device(told),
        "fault": text_of(told.get("fault")),
        "nodes": names_of(told.get("nodes")),
    }


def _device(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name_of(told.get("name")),
        "free": maybe_count(told.get("free")),
        "total": maybe_count(told.get("total")),
        "utilisation": number_of(told.get("utilisation")),
    }


def _decision(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at": number_of(told.get("at")) or 0.0,
        "before": count_of(told.get("before")),
        "after": count_of(told.get("after")),
        "reason": text_of(told.get("reason")) or "",
        "cause": name_of(told.get("cause")) or "",
    }


def _last_input(value: object) -> dict[str, Any] | None:
    told = mapping_of(value)
    input_id, task = name_of(told.get("id")), name_of(told.get("task"))
    if input_id is None or task is None:
        return None
    return {"id": input_id, "task": task, "seconds": number_of(told.get("seconds")) or 0.0}


def _lines(value: object) -> list[str]:
    told = value if isinstance(value, list) else []
    return [line for each in told[:100] if (line := text_of(each)) is not None]


def _share(cpu: float | None, pid: int | None, now: float, before: NodeWord | None) -> float | None:
    if cpu is None or before is None or before.cpu is None or before.told["pid"] != pid:
        return None
    seconds = now - before.heard_at
    # Two words in a moment tell little: their share would jump.
    if seconds < 0.5:
        return before.cpu_share
    return max(0.0, cpu - before.cpu) / seconds
