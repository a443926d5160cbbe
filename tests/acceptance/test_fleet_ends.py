"""However an autoscaler is told to end, its nodes finish what they have, and nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, fleet_environ, nodes_of, wait_for_status, waiting_source
from tests.services.process import program
from tests.services.project import Project
from tests.services.terminal import CTRL_C, Terminal
from tests.services.waiting import wait_for
from tests.services.witness import backlog, outcome, unacked

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture
def project(fleet_project: MakeFleetProject) -> Project:
    return fleet_project(waiting_source("max_nodes=1"))


@pytest.fixture
def terminal(project: Project) -> Iterator[Terminal]:
    """An autoscaler in a terminal."""
    with autoscaler_in_terminal(project) as window:
        yield window


@contextmanager
def autoscaler_in_terminal(project: Project, *below: str) -> Iterator[Terminal]:
    """Started by the program ``below``, if that is given."""
    words = [*below, sys.executable, "-m", "celery", "-A", project.name, "autoscaler"]
    window = Terminal(words, cwd=project.folder, env=fleet_environ(project))
    try:
        window.wait_for("autoscaler keeps", 30.0)
        yield window
    finally:
        window.kill()


def press_ctrl_c(terminal: Terminal) -> None:
    terminal.type(CTRL_C)


def send_sigterm(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGTERM)


def close_window(terminal: Terminal) -> None:
    terminal.close()


@pytest.mark.parametrize("end", [press_ctrl_c, send_sigterm, close_window])
def test_it_ends_when_its_nodes_have_finished_and_leaves_the_rest_to_the_broker(
    project: Project, terminal: Terminal, tmp_path: Path, end: Callable[[Terminal], None]
) -> None:
    flag = tmp_path / "flag"
    running, waiting = [project.tasks.wait.delay(str(flag)) for _ in range(2)]
    status = wait_for_status(project, "q", lambda s: (s["running"], s["backlog"]) == (1, 1))
    end(terminal)
    (node,) = status["nodes"]
    ends = f"node {node['name']} ends"
    wait_for(lambda: "Warm shutdown" in log_of(project, node["name"]), what=ends)
    assert terminal.process.poll() is None
    flag.touch()
    assert outcome(running) == "done"
    assert terminal.wait() == 0
    assert nodes_of(project) == []
    assert waiting.state == "PENDING"
    assert backlog(project, "q") == 1


def test_a_second_ctrl_c_ends_the_nodes_at_once_and_their_inputs_stay_with_the_broker(
    project: Project, terminal: Terminal, tmp_path: Path
) -> None:
    project.tasks.wait.delay(str(tmp_path / "never"))
    wait_for_status(project, "q", lambda s: s["running"] == 1)
    terminal.type(CTRL_C)
    terminal.wait_for("A second signal ends them at once")
    status = wait_for_status(project, "q", lambda s: s["counts"]["draining"] == 1)
    assert (status["state"], status["reason"]) == ("drained", "the autoscaler ends")
    terminal.type(CTRL_C)
    assert terminal.wait() == 0
    assert nodes_of(project) == []
    assert backlog(project, "q") + unacked(project) == 1


def test_below_nohup_it_outlives_its_terminal(project: Project, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with autoscaler_in_terminal(project, program("env"), "--ignore-signal=HUP") as window:
        window.close()
        running = project.tasks.wait.delay(str(flag))
        wait_for_status(project, "q", lambda s: s["running"] == 1)
        flag.touch()
        assert outcome(running) == "done"
        send_sigterm(window)
        assert window.wait() == 0
    assert nodes_of(project) == []


BROKEN = """
    import sys
    from celery_concurrent.autoscaler.loop import Autoscaler

    def fail(self, processes):
        if processes:
            raise RuntimeError("broken")
        return processes

    if "autoscaler" in sys.argv:  # the test has imported this, too
        Autoscaler._bury = fail
"""


def test_what_ends_an_autoscaler_is_said_before_its_nodes_drain(
    fleet_project: MakeFleetProject, tmp_path: Path
) -> None:
    project = fleet_project(dedent(waiting_source("max_nodes=1")) + dedent(BROKEN))
    flag = tmp_path / "flag"
    fleets = Fleets(project)
    try:
        fleets.wait_until_ready()
        project.tasks.wait.delay(str(flag))
        fleets.wait_for_log("draining 1 nodes", 30)
        said = fleets.log().partition("draining 1 nodes")[0]
        assert "the autoscaler cannot go on, and ends" in said
        assert "RuntimeError: broken" in said
        flag.touch()
        assert fleets.wait(30) == 1
        assert nodes_of(project) == []
    finally:
        fleets.kill()


def log_of(project: Project, node: str) -> str:
    (path,) = (project.folder / "state").rglob(f"logs/{node.partition('@')[0]}.log")
    return path.read_text()
