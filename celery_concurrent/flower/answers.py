"""What is answered: from the board, or from what a node said, to bodies in JSON.

docs/reference/openapi.json describes them. Pure, but for the board's own lock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery_concurrent.board import Board
from celery_concurrent.board.fields import (
    TEXT_LENGTH,
    count_of,
    mapping_of,
    mappings_of,
    name_of,
    number_of,
    text_of,
)
from celery_concurrent.flower.arguments import View
from celery_concurrent.flower.refusals import unknown

#: Inputs and log lines of a node that are shown at the most.
MOST_INPUTS: Final = 200
MOST_LINES: Final = 1_000

#: In a JSON text these stand in strings alone: no element can begin or end in a page.
_IN_PAGES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every answer begins with.

    Args:
        at: seconds since the epoch.
        why_no_controls: a sentence, or None where changes are taken.
    """

    at: float
    why_no_controls: str | None

    def body(self) -> dict[str, Any]:
        """Its fields."""
        return {
            "at": self.at,
            "controls": self.why_no_controls is None,
            "why_no_controls": self.why_no_controls,
        }


def overview(board: Board, head: Head) -> dict[str, Any]:
    """All fleets in short, and who keeps them."""
    return {**head.body(), "autoscalers": board.autoscalers(), "fleets": board.fleets()}


def fleet_detail(board: Board, queue: str, view: View, head: Head) -> dict[str, Any]:
    """One fleet with a page of its nodes and its history.

    Raises:
        RefusalError: nobody has told of such a fleet.
    """
    fleet = known_fleet(board, queue)
    nodes = [node for node in fleet.pop("nodes") if _is_seen(node, view)]
    first = view.page * view.size
    return {
        **head.body(),
        "fleet": fleet,
        "nodes": nodes[first : first + view.size],
        "nodes_total": len(nodes),
        "page": view.page,
        "size": view.size,
        "history": board.history(queue, view.seconds),
    }


def node_detail(
    node: Mapping[str, Any], told: Mapping[str, Any], error: str | None, head: Head
) -> dict[str, Any]:
    """One node with its inputs.

    Args:
        node: as the board has it.
        told: what it answered to ``node_inputs``.
        error: why it did not, or None.
    """
    inputs = [_input(each) for each in mappings_of(told.get("inputs"))[:MOST_INPUTS]]
    return {
        **head.body(),
        "node": node,
        "inputs": inputs,
        "inputs_total": max(count_of(told.get("total")), len(inputs)),
        "inputs_error": error,
    }


def log_of(
    input_id: str, node: str, told: Mapping[str, Any], error: str | None = None
) -> dict[str, Any]:
    """The log lines of one input.

    Args:
        input_id: its id.
        node: whom it ran on.
        told: what that one answered to ``input_log``.
        error: why it did not, or None.
    """
    return {
        "id": input_id,
        "node": node,
        "lines": [_line(each) for each in mappings_of(told.get("lines"))[-MOST_LINES:]],
        "dropped": count_of(told.get("dropped")),
        "error": error or text_of(told.get("error")),
    }


def known_node(board: Board, name: str) -> dict[str, Any]:
    """One node.

    Raises:
        RefusalError: nobody has told of it.
    """
    node = board.node(name)
    if node is None:
        raise unknown("node", name, (each["name"] for each in board.nodes()))
    return node


def known_fleet(board: Board, queue: str) -> dict[str, Any]:
    """One fleet.

    Raises:
        RefusalError: nobody has told of it.
    """
    fleet = board.fleet(queue)
    if fleet is None:
        raise unknown("fleet", queue, (each["queue"] for each in board.fleets()))
    return fleet


def text(body: Mapping[str, Any]) -> bytes:
    """A body as JSON, in ASCII, that ends no script where somebody puts it into a page."""
    try:
        written = json.dumps(body, separators=(",", ":"), allow_nan=False)
    except ValueError:
        # Nothing but a number that JSON does not know: a browser would read none of it.
        written = json.dumps(_finite(body), separators=(",", ":"), allow_nan=False)
    return written.translate(_IN_PAGES).encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_seen(node: Mapping[str, Any], view: View) -> bool:
    if view.state == "silent":
        if not node["silent"]:
            return False
    elif view.state and node["state"] != view.state:
        return False
    return not view.search or view.search.casefold() in _words(node)


def _words(node: Mapping[str, Any]) -> str:
    devices = (str(device[name] or "") for device in node["devices"] for name in ("name", "uuid"))
    return "\n".join((node["name"], node["note"] or "", *devices)).casefold()


def _input(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": name_of(told.get("id")) or "",
        "task": name_of(told.get("task")) or "",
        "group": name_of(told.get("group")) or "",
        "seconds": number_of(told.get("seconds")) or 0.0,
        "state": "running" if told.get("state") == "running" else "reserved",
    }


def _line(told: Mapping[str, Any]) -> dict[str, Any]:
    told = mapping_of(told)
    line = told.get("text")
    return {
        "at": number_of(told.get("at")) or 0.0,
        "level": name_of(told.get("level")) or "",
        "logger": name_of(told.get("logger")) or "",
        "text": line[: TEXT_LENGTH * 8] if isinstance(line, str) else "",
    }
