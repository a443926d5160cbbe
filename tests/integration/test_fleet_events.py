"""What a real autoscaler tells of its fleets, and what a board makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from celery_concurrent.autoscaler import mailbox
from celery_concurrent.board import Board
from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, waiting_source
from tests.services.project import Project
from tests.services.waiting import wait_for
from tests.services.witness import outcome

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@contextmanager
def listening(project: Project) -> Iterator[Board]:
    """A board that hears all events of the project."""
    board, ready = Board(), threading.Event()

    def listen() -> None:
        with project.app.connection_for_read() as connection:
            receiver = project.app.events.Receiver(connection, handlers={"*": board.note})
            receiver.on_consume_ready = lambda *_, **__: ready.set()
            receivers.append(receiver)
            receiver.capture(limit=None, timeout=None, wakeup=False)

    receivers: list[Any] = []
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield board
    receivers[0].should_stop = True
    thread.join(5)


def fleet(board: Board) -> dict[str, Any]:
    return board.fleet("q") or {"demand": None, "counts": {}, "nodes": [], "state": None}


def highest(board: Board) -> dict[str, int]:
    """The highest figures of the fleet's history."""
    history = board.history("q", 300)
    names = ("running", "ready", "backlog")
    return {name: max((n for n in history[name] if n is not None), default=0) for name in names}


def test_a_board_sees_what_the_autoscaler_sees(fleet_project: MakeFleetProject) -> None:
    project = fleet_project(waiting_source("min_nodes=0, max_nodes=2, scaledown_window=1"))
    fleets = Fleets(project)
    fleets.wait_until_ready()
    flag = project.folder / "go"
    with listening(project) as board:
        wait_for(lambda: fleet(board)["state"] == "ok", what="a word of the fleet")
        inputs = [project.tasks.wait.delay(str(flag)) for _ in range(3)]
        wait_for(
            lambda: (
                fleet(board)["demand"] == 3
                and [node["running"] for node in fleet(board)["nodes"]] == [1, 1]
            ),
            what=lambda: f"both nodes at work; {fleet(board)}",
        )
        told, asked = fleet(board), fleets.status("q")
        assert [node["name"] for node in told["nodes"]] == sorted(
            node["name"] for node in asked["nodes"]
        )
        same = ("queue", "tasks", "target_inputs", "max_inputs", "knobs", "overrides", "desired")
        assert {name: told[name] for name in same} == {name: asked[name] for name in same}
        assert told["decisions"] == asked["decisions"]
        assert [change["cause"] for change in told["decisions"]] == ["demand"]
        assert all(node["kept"] and node["pid"] and not node["silent"] for node in told["nodes"])
        assert [scaler["queues"] for scaler in board.autoscalers()] == [["q"]]
        # It notes how the fleet stands at times, not each change.
        wait_for(
            lambda: (
                highest(board)["running"] == highest(board)["ready"] == 2
                and highest(board)["backlog"] >= 1
            ),
            what=lambda: f"all that in the fleet's history; {highest(board)}",
        )
        flag.touch()
        for each in inputs:
            outcome(each, 20)
        wait_for(lambda: not fleet(board)["nodes"], 20, what=lambda: f"no node; {fleet(board)}")
        assert board.history("q", 300)["ready"][-1] == 0
        assert [change["cause"] for change in fleet(board)["decisions"]][-1] == "unneeded"
    fleets.stop()


def test_single_nodes_are_drained_and_stopped_by_hand(fleet_project: MakeFleetProject) -> None:
    project = fleet_project(waiting_source("min_nodes=2, max_nodes=2"))
    fleets = Fleets(project)
    fleets.wait_until_ready()
    flag = project.folder / "go"
    fleets.wait_for_status("q", lambda status: status["counts"]["ready"] == 2)
    running = [project.tasks.wait.delay(str(flag)) for _ in range(2)]
    before = fleets.wait_for_status("q", lambda status: status["running"] == 2)
    first, second = (node["name"] for node in before["nodes"])
    assert mailbox.ask(project.app, "drain_node", {"node": first}) == [{"node": first}]
    fleets.wait_for_status("q", lambda status: status["counts"]["draining"] == 1)
    assert mailbox.ask(project.app, "stop_node", {"node": second}) == [{"node": second}]
    # Its input goes back, and runs on one of the two that take their places.
    fleets.wait_for_status("q", lambda status: second not in names(status), 20)
    flag.touch()
    for each in running:
        outcome(each, 30)
    after = fleets.wait_for_status(
        "q", lambda status: first not in names(status) and status["counts"]["ready"] == 2
    )
    assert after["crashes"] == 0
    (answer,) = mailbox.ask(project.app, "drain_node", {"node": first})
    assert f"no node '{first}' lives: the autoscaler keeps" in answer["error"]
    fleets.stop()


def names(status: dict[str, Any]) -> list[str]:
    return [node["name"] for node in status["nodes"]]
