"""``fleet watch`` in a real terminal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, fleet_environ, waiting_source
from tests.services.project import Project
from tests.services.terminal import CTRL_C, HIDE_CURSOR, SHOW_CURSOR, Terminal
from tests.services.witness import outcome

pytest.importorskip("rich")

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture
def project(fleet_project: MakeFleetProject) -> Project:
    return fleet_project(waiting_source("max_nodes=2, scaledown_window=0", queue="thumbs"))


@pytest.fixture
def fleets(project: Project) -> Iterator[Fleets]:
    running = Fleets(project)
    running.wait_until_ready()
    running.status("thumbs")
    yield running
    running.kill()


@pytest.fixture
def watch(project: Project, fleets: Fleets) -> Iterator[Terminal]:
    words = [sys.executable, "-m", "celery", "-A", project.name, "fleet", "watch"]
    window = Terminal([*words, "--interval", "0.1"], cwd=project.folder, env=fleet_environ(project))
    yield window
    window.kill()


def test_it_shows_nodes_come_and_go_until_ctrl_c(
    project: Project, watch: Terminal, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    watch.wait_for("0 inputs at 1 per node")
    result = project.tasks.wait.delay(str(flag))
    watch.wait_for("1 ready")
    flag.touch()
    assert outcome(result) == "done"
    shown = len(watch.shown)
    watch.wait_for("0 inputs at 1 per node", after=shown)
    watch.type(CTRL_C)
    assert watch.wait() == 0
    assert watch.settings_now() == watch.settings
    assert watch.shown.rindex(SHOW_CURSOR) > watch.shown.rindex(HIDE_CURSOR)
    assert "Traceback" not in watch.shown
    assert "Aborted" not in watch.shown


def test_it_ends_with_a_word_when_the_autoscaler_does(fleets: Fleets, watch: Terminal) -> None:
    watch.wait_for("0 inputs at 1 per node")
    fleets.signal(signal.SIGTERM)
    assert fleets.wait(30.0) == 0
    assert watch.wait() == 1
    watch.wait_for("no autoscaler of this app answers")
    assert "Traceback" not in watch.shown
