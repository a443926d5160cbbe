"""What an autoscaler says of its fleets: data that JSON can hold, the same for all who show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from celery_concurrent.autoscaler.keeper import Keeper
from celery_concurrent.autoscaler.model import Node, NodeState
from celery_concurrent.autoscaler.provider import NodeProcess
from celery_concurrent.autoscaler.reports import Report
from celery_concurrent.fleets import OVERRIDE
from celery_concurrent.gpu.device import Device


def fleet_status(
    keeper: Keeper,
    *,
    now: float,
    processes: Mapping[str, NodeProcess],
    reports: Mapping[str, Report],
) -> dict[str, Any]:
    """One fleet.

    Args:
        keeper: whose.
        now: on the loop's clock.
        processes: nodes as the engine sees them, by name.
        reports: what they said, by name.
    """
    fleet, seen, decision = keeper.fleet, keeper.observation, keeper.decision
    nodes = () if seen is None else seen.nodes
    return {
        "queue": fleet.queue,
        "state": _state(keeper),
        "tasks": list(fleet.tasks),
        "target_inputs": fleet.limits.target,
        "max_inputs": fleet.limits.max_inputs,
        "knobs": asdict(fleet.knobs),
        "overrides": _overrides(keeper),
        "demand": None if seen is None else seen.demand,
        "backlog": None if seen is None else seen.backlog,
        "reserved": 0 if seen is None else seen.reserved,
        "running": 0 if seen is None else seen.running,
        "desired": 0 if decision is None else decision.desired,
        "reason": "" if decision is None else decision.reason,
        "counts": {state.value: 0 if seen is None else seen.count(state) for state in NodeState},
        "crashes": keeper.backoff.crashes,
        "missing": keeper.missing,
        "last_lines": list(keeper.last_lines)
        if keeper.backoff.crashes or keeper.trouble.crashes
        else [],
        "decisions": [asdict(change) for change in keeper.changes],
        "decided": dict(keeper.decided),
        "nodes": [
            _node(node, now, processes.get(node.name), reports.get(node.name)) for node in nodes
        ],
    }


def _state(keeper: Keeper) -> str:
    """In one word, the worst first."""
    if keeper.backoff.failing or keeper.trouble.crashes:
        return "failing"
    if keeper.drained or keeper.ending:
        return "drained"
    if keeper.blind is not None:
        return "held"
    if keeper.missing is not None:
        return "short"
    return "ok"


def _overrides(keeper: Keeper) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for layer in keeper.fleet.layers:
        if layer.source == OVERRIDE:
            said.update(layer.values)
    return said


def _node(
    node: Node, now: float, process: NodeProcess | None, report: Report | None
) -> dict[str, Any]:
    return {
        "name": node.name,
        "state": node.state.value,
        "seconds": round(now - node.since, 1),
        "running": node.running,
        "reserved": 0 if report is None else report.reserved,
        "slots": None if report is None else report.slots,
        "pid": None if process is None else process.pid,
        "adopted": process is not None and process.adopted,
        "devices": [] if process is None else list(process.devices),
        "note": None if report is None else report.note,
    }


def device_status(device: Device, processes: Iterable[NodeProcess]) -> dict[str, Any]:
    """One device of this host.

    Args:
        device: as it was last read.
        processes: all nodes of all fleets; those on the device are named.
    """
    return {
        "uuid": device.uuid,
        "name": device.name,
        "free": None if device.memory is None else device.memory.free,
        "total": None if device.memory is None else device.memory.total,
        "utilisation": device.utilisation,
        "fault": device.fault,
        "nodes": sorted(
            process.name
            for process in processes
            if process.lives and device.uuid in process.devices
        ),
    }
