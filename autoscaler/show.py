"""Statuses as people read them: rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_GIB = 1024**3
_MIB = 1024**2
#: Figures by the names that JSON, the API and the Fleet page have for them.
_FLEET = ("queue", "state")
_FLEET_FIGURES = ("demand", "backlog", "reserved", "running")
_NODE_FIGURES = ("running", "reserved", "target", "slots")
_STYLES = {"failing": "bold red", "held": "yellow", "short": "yellow", "drained": "dim"}


def everything(answer: Mapping[str, Any]) -> RenderableType:
    """What an autoscaler answers: its fleets, and what is wrong with its devices."""
    from rich.console import Group
    from rich.text import Text

    lost = [
        Text(f"no node starts on device {device['uuid']}: {device['fault']}", "red")
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
    for name in (*_FLEET, *_FLEET_FIGURES, "nodes", "desired"):
        right = name in _FLEET_FIGURES or name == "desired"
        table.add_column(name, justify="right" if right else "left")
    details: list[RenderableType] = []
    for status in statuses:
        table.add_row(
            status["queue"],
            Text(status["state"], style=_STYLES.get(status["state"], "green")),
            *("unknown" if status[name] is None else f"{status[name]}" for name in _FLEET_FIGURES),
            _counts(status["counts"]),
            f"{status['desired']}",
        )
        details.append(Text(f"{status['queue']}: {status['reason']}", style="dim"))
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
        lines.append(Text(_crashed(status), style="red"))
        lines += [Text(f"    {line}", style="dim") for line in status["last_lines"][-5:]]
    return lines


def _crashed(status: Mapping[str, Any]) -> str:
    count = status["crashes"]
    told = "a node has crashed" if count == 1 else f"{count} nodes in a row have crashed"
    ends = "; its log ends:" if count == 1 else "; the last one's log ends:"
    return f"{status['queue']}: {told}{ends if status['last_lines'] else ''}"


def _nodes(status: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    figures = ("seconds", "age", *_NODE_FIGURES, "pid", "cpu", "rss")
    for name in ("node", "state", *figures, "last_input", "devices"):
        table.add_column(name, justify="right" if name in figures else "left")
    for node in status["nodes"]:
        table.add_row(
            node["name"],
            node["state"] + (" (adopted)" if node["adopted"] else ""),
            f"{node['seconds']:.0f} s",
            "-" if node["age"] is None else f"{node['age']:.0f} s",
            *("-" if node[name] is None else f"{node[name]}" for name in (*_NODE_FIGURES, "pid")),
            "-" if node["cpu"] is None else f"{node['cpu']:.0%}",
            "-" if node["rss"] is None else f"{node['rss'] / _MIB:.0f} MiB",
            _last_input(node["last_input"]),
            ", ".join(map(_device, node["devices"])) or "-",
        )
    return table


def _last_input(told: Mapping[str, Any] | None) -> str:
    return "-" if told is None else f"{told['task']} {told['seconds']:.0f} s ago"


def _device(device: Mapping[str, Any]) -> str:
    """Its identity, and what of it the node tells."""
    told = [str(device["uuid"])]
    if device["free"] is not None and device["total"] is not None:
        told.append(f"{device['free'] / _GIB:.1f} of {device['total'] / _GIB:.1f} GiB free")
    if device["utilisation"] is not None:
        told.append(f"{device['utilisation']:.0f}% used")
    return " ".join(told)


def _notes(status: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    return [
        Text(f"  {node['name']}: {node['note']}", style="yellow")
        for node in status["nodes"]
        if node["note"]
    ]
