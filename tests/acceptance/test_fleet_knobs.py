"""What a fleet's knobs promise, each seen in real nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.fixtures import MakeProject
from tests.services.fleets import Fleets, end_nodes
from tests.services.project import Broker, Project

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]

#: Nodes load until the file ``loading`` is gone; inputs run until their flag is there.
BURSTING = """
    import asyncio
    import time
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent, enter, method, scaling, service

    app = Celery()

    @service(app, queue="q")
    @scaling(min_nodes=1, max_nodes=8)
    @concurrent(max_inputs=120, target_inputs=100)
    class Model:
        @enter
        def load(self):
            while Path(__file__).with_name("loading").exists():
                time.sleep(0.02)

        @method
        async def wait(self, flag):
            while not Path(flag).exists():
                await asyncio.sleep(0.1)
"""

ONE_EACH = """
    import time
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q")
    @scaling(min_nodes=1, max_nodes=4, buffer_nodes=1, scaledown_window=2)
    @concurrent(max_inputs=1)
    def wait(flag):
        while not Path(flag).exists():
            time.sleep(0.05)
        return time.time()
"""

StartFleets = Callable[[str], tuple[Project, Fleets]]


@pytest.fixture
def start(celery_project: MakeProject, redis_broker: Broker) -> Iterator[StartFleets]:
    """Starts an app's autoscaler, which ends with the test, as its nodes do."""
    started: list[tuple[Project, Fleets]] = []

    def make(source: str) -> tuple[Project, Fleets]:
        project = celery_project(source, broker=redis_broker)
        fleets = Fleets(project)
        started.append((project, fleets))
        fleets.wait_until_ready()
        return project, fleets

    yield make
    for project, fleets in started:
        fleets.kill()
        end_nodes(project)


def test_a_burst_fills_a_node_to_max_inputs_while_others_start_and_the_fleet_settles_at_target(
    start: StartFleets, tmp_path: Path
) -> None:
    """360 inputs are three nodes' slots, and four nodes' target."""
    project, fleets = start(BURSTING)
    fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 1)
    flag, loading = tmp_path / "flag", project.folder / "loading"
    loading.touch()
    waiting = [project.tasks.Model.wait.delay(str(flag)) for _ in range(360)]
    status = fleets.wait_for_status(
        "q", lambda s: (s["running"], s["demand"], s["counts"]["starting"]) == (120, 360, 3)
    )
    assert (status["desired"], status["counts"]["ready"]) == (4, 1)
    loading.unlink()
    status = fleets.wait_for_status("q", lambda s: s["running"] == 360)
    assert status["counts"] == {"ready": 4, "starting": 0, "draining": 0}
    assert all(node["running"] <= 120 for node in status["nodes"])
    waiting += [project.tasks.Model.wait.delay(str(flag)) for _ in range(40)]
    status = fleets.wait_for_status("q", lambda s: s["running"] == 400)
    assert len(status["nodes"]) == 4  # at 100 each
    flag.touch()
    for result in waiting:
        result.get(timeout=30)


def test_min_max_and_buffer_nodes_and_the_window_bound_a_fleet_of_one_input_per_node(
    start: StartFleets, tmp_path: Path
) -> None:
    project, fleets = start(ONE_EACH)
    flag = tmp_path / "flag"

    def ready(nodes: int, running: int) -> dict[str, Any]:
        return fleets.wait_for_status(
            "q",
            lambda s: (s["counts"]["ready"], s["running"]) == (nodes, running),
        )

    assert ready(1, 0)["demand"] == 0  # min_nodes; a buffer is for a fleet that has work
    waiting = []
    for nodes in (2, 3, 4):  # one input each, and buffer_nodes=1
        waiting.append(project.tasks.wait.delay(str(flag)))
        ready(nodes, len(waiting))
    waiting += [project.tasks.wait.delay(str(flag)) for _ in range(3)]
    status = fleets.wait_for_status("q", lambda s: (s["demand"], s["running"]) == (6, 4))
    assert status["desired"] == len(status["nodes"]) == 4  # max_nodes, with and without buffer
    flag.touch()
    ends = sorted(result.get(timeout=30) for result in waiting)
    status = ready(1, 0)
    assert [change["after"] for change in status["decisions"]][:4] == [1, 2, 3, 4]
    assert max(change["after"] for change in status["decisions"]) == 4
    fell = next(change for change in status["decisions"] if change["after"] < change["before"])
    # scaledown_window, from the end that left two inputs: they and the buffer are three nodes.
    assert fell["at"] - ends[3] >= 2.0
    fleets.command("set", "q", "--min-nodes", "0")
    fleets.wait_for_status("q", lambda s: s["nodes"] == [])
