"""A fleet goes on while the disk under its logs and records is full, and ends in order."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.services.disk import full_disk
from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, nodes_of, waiting_source
from tests.services.project import Project
from tests.services.witness import outcome

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture
def project(fleet_project: MakeFleetProject) -> Project:
    return fleet_project(waiting_source("min_nodes=1, max_nodes=2, gpus=1", prints=10_000))


def test_nodes_work_on_none_is_started_and_when_there_is_room_again_one_is(
    project: Project, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    fleets = Fleets(project, "--simulate-gpus", "2")
    try:
        fleets.wait_until_ready()
        fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 1)
        with full_disk([fleets.pid, *nodes_of(project)]):
            results = [project.tasks.wait.delay(str(flag)) for _ in range(2)]
            status = fleets.wait_for_status("q", lambda s: s["running"] and s["crashes"])
            assert len(status["nodes"]) == 1
            assert "could not be started" in status["last_lines"][0]
            refused = fleets.command("set", "q", "--max-nodes", "3", check=False)
            assert refused.returncode == 1
            assert "File too large" in refused.stderr
            assert fleets.status("q")["overrides"] == {}
        status = fleets.wait_for_status("q", lambda s: s["running"] == 2)
        assert status["overrides"] == {}
        with full_disk([fleets.pid, *nodes_of(project)]):
            fleets.signal(signal.SIGTERM)
            flag.touch()
            assert [outcome(result) for result in results] == ["done", "done"]
            assert fleets.wait(30.0) == 0
        assert nodes_of(project) == []
        assert list((project.folder / "state").rglob("nodes/*")) == []
    finally:
        fleets.kill()
