"""What is made of the words of nodes and autoscalers, whoever says them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.board import Board
from celery_concurrent.board.board import (
    AUTOSCALER_FORGOTTEN,
    AUTOSCALER_SILENT,
    MOST_FLEETS,
    NODE_FORGOTTEN,
    NODE_SILENT,
)
from celery_concurrent.board.fields import NAME_LENGTH, TEXT_LENGTH
from celery_concurrent.board.history import Sample


class Clock:
    """Monotonic seconds, and the time of day."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock=clock, wall=clock.wall)


def node(name: str = "n1@host", **fields: Any) -> dict[str, Any]:
    told = {
        "state": "ready",
        "state_age": 3.0,
        "age": 5.0,
        "queues": ["q"],
        "slots": 8,
        "target": 6,
        "running": 2,
        "reserved": 1,
        "scheduled": 0,
        "pid": 7,
        "tasks": {"shop.fetch": {"slots": 8, "target": 6, "running": 2, "reserved": 1}},
        "cpu": 1.0,
        "rss": 5_000_000,
    }
    return {"type": "concurrency-node", "hostname": name, **told, **fields}


def fleet(queue: str = "q", *names: str, **fields: Any) -> dict[str, Any]:
    told = {
        "state": "ok",
        "tasks": ["shop.fetch"],
        "target_inputs": 6,
        "max_inputs": 8,
        "knobs": {"min_nodes": 0, "max_nodes": 4, "policy": "hold"},
        "overrides": {"max_nodes": 4},
        "demand": 9,
        "backlog": 6,
        "reserved": 1,
        "running": 2,
        "desired": 2,
        "reason": "9 inputs",
        "counts": {"starting": 1, "ready": 1, "draining": 0},
        "decisions": [
            {"at": 1.5, "before": 0, "after": 2, "reason": "9 inputs", "cause": "demand"}
        ],
        "nodes": [
            {"name": name, "state": "ready", "seconds": 1.0, "pid": 7, "devices": ["GPU-1"]}
            for name in names
        ],
    }
    return (
        {"type": "concurrency-fleet", "hostname": "autoscaler@host", "queue": queue} | told | fields
    )


# -- nodes


def test_a_node_is_shown_as_it_said(board: Board) -> None:
    board.note(node(devices={"GPU-1": {"name": "A", "free": 1, "total": 4, "utilisation": 50}}))
    shown = board.node("n1@host")
    assert shown is not None
    assert (shown["host"], shown["slots"], shown["target"], shown["running"]) == ("host", 8, 6, 2)
    assert shown["devices"] == [
        {"uuid": "GPU-1", "name": "A", "free": 1, "total": 4, "utilisation": 50}
    ]
    assert (shown["kept"], shown["silent"], shown["rss"]) == (False, False, 5_000_000)
    assert board.nodes() == [shown]


def test_its_share_of_the_processor_is_that_between_its_last_words(
    board: Board, clock: Clock
) -> None:
    board.note(node(cpu=1.0))
    assert board.nodes()[0]["cpu"] is None
    clock.now += 2
    board.note(node(cpu=2.0))
    assert board.nodes()[0]["cpu"] == 0.5
    clock.now += 1
    board.note(node(cpu=0.1, pid=8))  # another process by the same name
    assert board.nodes()[0]["cpu"] is None


def test_a_node_that_says_nothing_is_silent_and_then_forgotten(board: Board, clock: Clock) -> None:
    board.note(node())
    clock.now += NODE_SILENT + 0.1
    assert board.nodes()[0]["silent"]
    clock.now += NODE_FORGOTTEN
    board.note(node("n2@host"))
    assert [each["name"] for each in board.nodes()] == ["n2@host"]


def test_a_node_is_gone_with_its_last_word(board: Board) -> None:
    board.note(node())
    board.note(node(state="draining", ended=True))
    assert board.nodes() == []
    assert board.fleets() == []


# -- fleets


def test_a_fleet_has_the_nodes_that_its_autoscaler_keeps_and_others_of_its_queue(
    board: Board,
) -> None:
    board.note(fleet("q", "n1@host", "n3@host"))
    board.note(node("n1@host"))
    board.note(node("by-hand@host"))
    shown = board.fleet("q")
    assert shown is not None
    by_name = {each["name"]: each for each in shown["nodes"]}
    assert {name: each["kept"] for name, each in by_name.items()} == {
        "by-hand@host": False,
        "n1@host": True,
        "n3@host": True,
    }
    assert by_name["n3@host"]["devices"][0]["uuid"] == "GPU-1"
    assert by_name["n3@host"]["slots"] is None
    assert by_name["n1@host"]["slots"] == 8
    assert shown["node_count"] == 3
    assert (shown["demand"], shown["state"], shown["kept"]) == (9, "ok", True)


def test_a_fleet_with_an_autoscaler_on_each_of_two_hosts_is_one(board: Board, clock: Clock) -> None:
    board.note(fleet("q", "n1@a", hostname="autoscaler@a"))
    board.note(fleet("q", "n2@b", hostname="autoscaler@b", backlog=7, demand=10, state="held"))
    board.note(node("n1@a"))
    board.note(fleet("q", "n2@b", hostname="autoscaler@b", backlog=None, demand=None))
    shown = board.fleet("q")
    assert shown is not None
    assert [(each["name"], each["kept"]) for each in shown["nodes"]] == [
        ("n1@a", True),
        ("n2@b", True),
    ]
    # The backlog is one and the same; what nodes hold adds up.
    assert (shown["backlog"], shown["running"], shown["reserved"]) == (6, 4, 2)
    assert (shown["demand"], shown["desired"]) == (12, 4)
    assert (shown["min_nodes"], shown["max_nodes"], shown["knobs"]["max_nodes"]) == (0, 8, 4)
    assert shown["counts"] == {"starting": 2, "ready": 2, "draining": 0}
    assert shown["reason"] == "a: 9 inputs; b: 9 inputs"
    assert len(shown["decisions"]) == 2
    clock.now += AUTOSCALER_SILENT - 1
    board.note(fleet("q", "n1@a", hostname="autoscaler@a"))
    clock.now += 2
    alone = board.fleet("q")
    assert alone is not None
    assert (alone["running"], alone["silent"]) == (2, False)


def test_the_worst_of_the_states_is_shown(board: Board) -> None:
    board.note(fleet("q", hostname="autoscaler@a"))
    board.note(fleet("q", hostname="autoscaler@b", state="held"))
    assert board.fleets()[0]["state"] == "held"


def test_a_list_of_fleets_leaves_out_the_details(board: Board) -> None:
    board.note(fleet("b", last_lines=["x"]))
    board.note(fleet("a"))
    shown = board.fleets()
    assert [each["queue"] for each in shown] == ["a", "b"]
    assert not {"decisions", "last_lines", "nodes"} & shown[0].keys()


def test_nodes_without_an_autoscaler_are_a_fleet_that_nobody_keeps(board: Board) -> None:
    board.note(node("n1@host", queues=["a", "b"]))
    board.note(node("n2@host", queues=["b"], state="starting"))
    a, b = board.fleets()
    assert (a["state"], a["demand"], a["backlog"], a["kept"]) == ("unkept", None, None, False)
    assert b["counts"] == {"starting": 1, "ready": 1, "draining": 0}
    assert b["running"] == 4


def test_nodes_that_nobody_keeps_count_while_they_are_heard(board: Board, clock: Clock) -> None:
    board.note(node("n1@host"))
    clock.now += NODE_SILENT + 0.1
    board.note(node("n2@host"))
    (half,) = board.fleets()
    assert (half["counts"]["ready"], half["running"], half["silent"]) == (1, 2, False)
    assert half["node_count"] == 2
    clock.now += NODE_SILENT + 0.1
    (none,) = board.fleets()
    assert (none["state"], none["silent"]) == ("unkept", True)


def test_what_is_silent_is_forgotten_though_nobody_speaks_any_more(
    board: Board, clock: Clock
) -> None:
    board.note(node("n1@host"))
    board.note(fleet("p"))
    board.note({"type": "concurrency-autoscaler", "hostname": "autoscaler@host", "queues": ["p"]})
    clock.now += NODE_FORGOTTEN + 0.1
    assert [each["queue"] for each in board.fleets()] == ["p"]
    assert (board.nodes(), board.node("n1@host"), board.fleet("q")) == ([], None, None)
    clock.now += AUTOSCALER_FORGOTTEN
    assert (board.fleets(), board.autoscalers()) == ([], [])


def test_a_node_that_its_autoscaler_has_buried_is_gone_at_once(board: Board) -> None:
    board.note(fleet("q", "n1@host"))
    board.note(node("n1@host"))
    board.note(fleet("q"))
    assert board.nodes() == []
    board.note(node("n1@host"))  # a word that was under way
    assert board.nodes() == []
    board.note(fleet("q", "n1@host"))  # the engine did not answer, and does again
    board.note(node("n1@host"))
    assert [each["slots"] for each in board.nodes()] == [8]


def test_a_node_that_was_told_to_drain_drains_though_it_has_not_said_so(board: Board) -> None:
    board.note(fleet("q", nodes=[{"name": "n1@host", "state": "draining"}]))
    board.note(node("n1@host"))
    assert board.nodes()[0]["state"] == "draining"


def test_an_autoscaler_that_is_known_is_heard_however_many_there_are(
    board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_concurrent.board.board.MOST_AUTOSCALERS", 1)
    for queues in (["q"], ["q", "r"]):
        for host in "ab":
            event = {"type": "concurrency-autoscaler", "hostname": f"autoscaler@{host}"}
            board.note({**event, "queues": queues})
    (known,) = board.autoscalers()
    assert (known["name"], known["queues"]) == ("autoscaler@a", ["q", "r"])


def test_an_autoscaler_that_says_nothing_is_silent_and_then_forgotten(
    board: Board, clock: Clock
) -> None:
    board.note({"type": "concurrency-autoscaler", "hostname": "autoscaler@host", "queues": ["q"]})
    board.note(fleet("q"))
    clock.now += AUTOSCALER_SILENT + 0.1
    assert board.autoscalers()[0]["silent"]
    assert board.fleets()[0]["silent"]
    clock.now += AUTOSCALER_FORGOTTEN
    board.note(node())
    assert board.autoscalers() == []
    assert board.fleets()[0]["state"] == "unkept"


# -- history


def test_the_last_minutes_are_kept_by_the_second(board: Board, clock: Clock) -> None:
    for second in range(400):
        board.note(fleet("q", backlog=second))
        clock.now += 0.5
        board.note(fleet("q", backlog=second, running=99))
        clock.now += 0.5
    history = board.history("q", 300)
    assert history["backlog"] == list(range(99, 400))
    assert set(history["running"]) == {99}
    assert history["at"] == sorted(history["at"])
    assert {len(column) for column in history.values()} == {301}
    assert history["target"][0] == 2 * 6
    assert history["most"][0] == 2 * 8


def test_of_the_hour_before_the_peaks_of_ten_seconds_are_kept(board: Board, clock: Clock) -> None:
    for second in range(4000):
        board.note(fleet("q", backlog=500 if second == 1234 else 1))
        clock.now += 1
    history = board.history("q", 3600)
    assert history["backlog"].count(500) == 1
    assert len(history["at"]) == 361


def test_a_board_that_begins_recalls_what_another_one_has_kept(clock: Clock) -> None:
    older = Board(clock=clock, wall=clock.wall)
    for backlog in range(1000):
        older.note(fleet("q", backlog=backlog))
        clock.now += 1
    younger = Board(clock=clock, wall=clock.wall)
    younger.note(fleet("q", backlog=7))
    older.note(fleet("q", backlog=7))
    younger.recall("q", json.loads(json.dumps(older.memory("q"))))
    for seconds in (300, 3600):
        assert younger.history("q", seconds) == older.history("q", seconds)
    younger.recall("nobody", older.memory("q"))
    assert younger.history("nobody", 300)["at"] == []


@pytest.mark.parametrize(
    "memory",
    [{}, {"fine": 3}, {"fine": {"at": [1.0]}}, {"fine": {name: ["x"] for name in Sample._fields}}],
)
def test_what_is_no_history_is_not_recalled(board: Board, memory: dict[str, Any]) -> None:
    board.note(fleet("q"))
    before = board.history("q", 300)
    board.recall("q", memory)
    assert board.history("q", 300) == before


def test_an_unknown_backlog_is_not_zero(board: Board, clock: Clock) -> None:
    board.note(fleet("q", backlog=None, demand=None))
    assert board.history("q", 300)["backlog"] == [None]
    assert board.fleets()[0]["demand"] is None
    assert board.history("nobody", 300)["at"] == []


# -- anybody


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "q", "free", "tasks", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    kind=st.sampled_from(["node", "fleet", "autoscaler", "other"]),
    fields=st.dictionaries(st.sampled_from([*node(), *fleet(), "ended", "devices"]), JSON),
)
def test_no_event_ends_a_board(kind: str, fields: dict[str, Any]) -> None:
    board = Board()
    template = node() if kind == "node" else fleet("q", "n1@host")
    for event in ({**template, **fields}, {**fields}, template):
        board.note({**event, "type": f"concurrency-{kind}"})
        for queue in [each["queue"] for each in board.fleets()]:
            assert board.fleet(queue) is not None
            board.history(queue, 300)
        assert all(board.node(each["name"]) == each for each in board.nodes())
        board.autoscalers()


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "task-received", "hostname": "n1@host"},
        node(state="flying"),
        node(name=""),
        node("x" * (NAME_LENGTH + 1)),
        node("half a pair \ud800@host"),
        {"type": "concurrency-fleet", "queue": "q"},
        fleet(""),
        {"type": ["concurrency-node"]},
    ],
)
def test_what_is_no_event_of_ours_leaves_no_trace(board: Board, event: dict[str, Any]) -> None:
    board.note(event)
    assert (board.nodes(), board.fleets(), board.autoscalers()) == ([], [], [])


def test_texts_are_cut_and_figures_of_other_types_are_not_told(board: Board) -> None:
    told: dict[str, Any] = {"age": math.nan, "rss": -1, "cpu": 10**400}  # a number that is no float
    board.note(node(note="x" * 5000, running="many", slots=True, **told))
    shown = board.nodes()[0]
    assert len(shown["note"]) == TEXT_LENGTH
    assert (shown["running"], shown["slots"], shown["age"], shown["rss"]) == (0, None, None, None)


def test_there_is_room_for_so_many_fleets(board: Board) -> None:
    for number in range(MOST_FLEETS + 50):
        board.note(fleet(f"q{number}"))
    assert len(board.fleets()) == MOST_FLEETS
