"""What the page and programs are answered, of a board that has heard events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.board import Board
from celery_concurrent.flower import answers
from celery_concurrent.flower.answers import Head
from celery_concurrent.flower.arguments import View
from celery_concurrent.flower.refusals import RefusalError

HEAD = Head(at=1000.5, why_no_controls=None)
HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028\x00\ud800"


def node_event(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "concurrency-node",
        "hostname": name,
        "state": "ready",
        "queues": ["fetch"],
        "slots": 20,
        "target": 15,
        **fields,
    }


def board(*events: dict[str, Any]) -> Board:
    made = Board(clock=lambda: 50.0, wall=lambda: 1000.0)
    for event in events:
        made.note(event)
    return made


@pytest.fixture
def ten() -> Board:
    """Ten nodes: the odd ones drain, the last one has a device and a note."""
    states = ["ready", "draining"]
    return board(
        *(node_event(f"fetch-{number}@host", state=states[number % 2]) for number in range(9)),
        node_event(
            "fetch-9@host",
            note="Fewer inputs",
            devices={"GPU-7f": {"name": "NVIDIA H100", "free": 1, "total": 2, "utilisation": 3}},
        ),
    )


def detail(board: Board, **view: Any) -> dict[str, Any]:
    return answers.fleet_detail(board, "fetch", View(**view), HEAD)


def test_an_overview_has_the_fleets_and_says_why_nothing_can_be_changed() -> None:
    body = answers.overview(board(node_event("a@h")), Head(at=1.0, why_no_controls="no login"))
    assert (body["controls"], body["why_no_controls"], body["at"]) == (False, "no login", 1.0)
    assert [(fleet["queue"], fleet["node_count"]) for fleet in body["fleets"]] == [("fetch", 1)]
    assert body["autoscalers"] == []
    assert answers.overview(Board(), HEAD)["controls"] is True


def test_nodes_come_in_pages_and_all_are_counted(ten: Board) -> None:
    body = detail(ten, page=1, size=4)
    assert [node["name"] for node in body["nodes"]] == [f"fetch-{n}@host" for n in range(4, 8)]
    assert (body["nodes_total"], body["page"], body["size"]) == (10, 1, 4)
    assert [node["name"] for node in detail(ten, page=2, size=4)["nodes"]][-1] == "fetch-9@host"
    assert detail(ten, page=3, size=4)["nodes"] == []
    assert "nodes" not in body["fleet"]


def test_nodes_are_filtered_by_state_before_they_are_paged(ten: Board) -> None:
    body = detail(ten, state="draining", size=2)
    assert [node["name"] for node in body["nodes"]] == ["fetch-1@host", "fetch-3@host"]
    assert body["nodes_total"] == 4
    assert detail(ten, state="silent")["nodes_total"] == 0


@pytest.mark.parametrize("search", ["FETCH-9", "h100", "gpu-7F", "fewer"])
def test_nodes_are_searched_by_name_device_and_note(ten: Board, search: str) -> None:
    assert [node["name"] for node in detail(ten, search=search)["nodes"]] == ["fetch-9@host"]


def test_a_history_comes_in_columns_of_one_length(ten: Board) -> None:
    history = detail(ten)["history"]
    assert {"at", "backlog", "running", "target", "most"} <= history.keys()
    assert {len(column) for column in history.values()} == {1}


def test_a_fleet_and_a_node_that_nobody_has_told_of_are_unknown(ten: Board) -> None:
    with pytest.raises(RefusalError, match="no fleet 'nix' has been heard of; known: 'fetch'"):
        answers.fleet_detail(ten, "nix", View(), HEAD)
    with pytest.raises(RefusalError, match=r"no node 'nix' .* and 5 more"):
        answers.known_node(ten, "nix")
    assert answers.known_node(ten, "fetch-9@host")["note"] == "Fewer inputs"
    assert answers.known_fleet(ten, "fetch")["kept"] is False


def test_the_inputs_of_a_node_are_shown_as_it_has_told_them() -> None:
    told = {
        "inputs": [
            {"id": "a", "task": "t", "group": "g", "seconds": 1.5, "state": "running"},
            {"id": "b", "task": "t", "group": "g", "seconds": 0, "state": "reserved"},
        ],
        "total": 300,
    }
    body = answers.node_detail({"name": "n"}, told, None, HEAD)
    assert (body["inputs"], body["inputs_total"]) == (told["inputs"], 300)
    assert body["inputs_error"] is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_whatever_is_told_as_inputs_or_lines_has_the_right_types(junk: Any) -> None:
    for told in (
        {"inputs": junk, "total": junk, "lines": junk, "dropped": junk, "error": junk},
        {"inputs": [{"id": junk, "seconds": junk}], "lines": [{"text": junk, "at": junk}]},
    ):
        shown = answers.node_detail({}, told, None, HEAD)
        log = answers.log_of("i", "n", told)
        json.loads(answers.text(shown)), json.loads(answers.text(log))
        assert isinstance(shown["inputs_total"], int)
        assert all(isinstance(each["id"], str) for each in shown["inputs"])
        assert all(isinstance(each["text"], str) for each in log["lines"])
        assert isinstance(log["dropped"], int)


def test_a_log_has_the_latest_lines_and_says_what_is_missing() -> None:
    lines = [{"at": 1.0, "level": "INFO", "logger": "l", "text": str(n)} for n in range(1_200)]
    body = answers.log_of("i", "n@h", {"lines": lines, "dropped": 7})
    assert (body["id"], body["node"], body["dropped"], body["error"]) == ("i", "n@h", 7, None)
    assert (len(body["lines"]), body["lines"][-1]) == (1_000, lines[-1])
    assert answers.log_of("i", "n", {"error": "gone"})["error"] == "gone"
    assert answers.log_of("i", "n", {}, "silent")["error"] == "silent"


def test_no_name_can_begin_or_end_an_element_of_a_page() -> None:
    written = answers.text({HOSTILE: HOSTILE})
    assert not set(written) & set(b"<>&\x00")
    assert written.isascii()
    assert json.loads(written) == {HOSTILE: HOSTILE}


def test_a_number_that_json_does_not_know_becomes_null() -> None:
    body = {"a": [float("nan"), 1.0], "b": {"c": float("inf")}}
    assert json.loads(answers.text(body)) == {"a": [None, 1.0], "b": {"c": None}}
