"""Statuses as people read them: rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_GIB = 1024**3
_STYLES = {"failing": "bold red", "held": "yellow", "short": "yellow", "drained": "dim"}


def everything(answer: Mapping[str, Any]) -> RenderableType:
    """What an autoscaler answers: its fleets, and what is wrong with its devices."""
    from rich.console import Group
    from rich.text import Text

    lost = [
        Text(f"device {device['uuid']} is lost, no node starts on it: {device['fault']}", "red")
        for device in answer["devices"]
        if device["fault"] is not None
    ]
    return Group(fleets(answer["fleets"]), *lost)


def fleets(statuses: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One line per fleet, and below it what is wrong there and who its nodes are."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("queue", "state", "demand", "running", "nodes", "of", "last decision"):
        table.add_column(name, justify="right" if name in ("demand", "running", "of") else "left")
    details: list[RenderableType] = []
    for status in statuses:
        table.add_row(
            status["queue"],
            Text(status["state"], style=_STYLES.get(status["state"], "green")),
            "unknown" if status["demand"] is None else f"{status['demand']}",
            f"{status['running']}",
            _counts(status["counts"]),
            f"{status['desired']}",
            status["reason"],
        )
        details += _troubles(status)
        if status["nodes"]:
            details.append(_nodes(status))
            details += _notes(status)
    return Group(table, *details)


def _counts(counts: Mapping[str, int]) -> str:
    told = [f"{count} {state}" for state, count in counts.items() if count]
    return ", ".join(told) or "none"


def _troubles(status: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    lines: list[RenderableType] = []
    if status["overrides"]:
        told = ", ".join(f"{name}={value}" for name, value in status["overrides"].items())
        lines.append(Text(f"{status['queue']}: overrides in force: {told}", style="cyan"))
    if status["missing"]:
        lines.append(Text(f"{status['queue']}: {status['missing']}", style="yellow"))
    if status["crashes"]:
        lines.append(
            Text(f"{status['queue']}: {status['crashes']} crashes in a row; the last", style="red")
        )
        lines += [Text(f"    {line}", style="dim") for line in status["last_lines"][-5:]]
    return lines


def _nodes(status: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    for name in ("node", "state", "for", "running", "slots", "pid", "devices", "memory free"):
        table.add_column(name, justify="right" if name in ("for", "running", "slots") else "left")
    for node in status["nodes"]:
        table.add_row(
            node["name"],
            node["state"] + (" (adopted)" if node["adopted"] else ""),
            f"{node['seconds']:.0f} s",
            f"{node['running']}",
            "-" if node["slots"] is None else f"{node['slots']}",
            "-" if node["pid"] is None else f"{node['pid']}",
            ", ".join(node["devices"]) or "-",
            _memories(node) or "-",
        )
    return table


def _memories(node: Mapping[str, Any]) -> str:
    told = [node["memory"][uuid] for uuid in node["devices"] if uuid in node["memory"]]
    return ", ".join(f"{one['free'] / _GIB:.1f} of {one['total'] / _GIB:.1f} GiB" for one in told)


def _notes(status: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    return [
        Text(f"  {node['name']}: {node['note']}", style="yellow")
        for node in status["nodes"]
        if node["note"]
    ]
