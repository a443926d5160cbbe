"""Fleets on each broker, and what they do while theirs, or a node, does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.fixtures import MakeProject
from tests.services.fleets import Fleets, end_nodes, nodes_of, workers_of
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.witness import outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: Nodes load until the file ``loading`` is gone; inputs run until their flag is there.
SOURCE = """
    import asyncio
    import time
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent, enter, method, scaling, service

    app = Celery()

    @service(app, queue="q")
    @scaling(max_nodes=4, scaledown_window=1)
    @concurrent(max_inputs=2)
    class Model:
        @enter
        def load(self):
            while Path(__file__).with_name("loading").exists():
                time.sleep(0.02)

        @method
        async def wait(self, flag, seconds=0):
            while not Path(flag).exists():
                await asyncio.sleep(0.05)
            await asyncio.sleep(seconds)
            return "done"
"""


#: What is not needed goes at once, unless the fleet is held.
AT_ONCE = ("--scaledown-window", "0")


@contextmanager
def fleets_of(project: Project, *options: str) -> Iterator[Fleets]:
    """The project's autoscaler; it ends in order, and nothing is left of it."""
    fleets = Fleets(project, *options)
    try:
        fleets.wait_until_ready()
        yield fleets
        fleets.signal(signal.SIGTERM)
        assert fleets.wait(30.0) == 0
        assert nodes_of(project) == []
    finally:
        fleets.kill()
        end_nodes(project)


@pytest.mark.rabbitmq
def test_a_fleet_on_rabbitmq_follows_its_backlog_and_leaves(
    celery_project: MakeProject, rabbitmq_broker: Broker, tmp_path: Path
) -> None:
    project, flag = celery_project(SOURCE, broker=rabbitmq_broker), tmp_path / "flag"
    with fleets_of(project) as fleets:
        assert fleets.wait_for_status("q", lambda s: s["demand"] == 0)["nodes"] == []
        results = [project.tasks.Model.wait.delay(str(flag)) for _ in range(6)]
        status = fleets.wait_for_status("q", lambda s: s["running"] == 6)
        assert [node["running"] for node in status["nodes"]] == [2, 2, 2]
        flag.touch()
        assert [outcome(result) for result in results] == ["done"] * 6
        fleets.wait_for_status("q", lambda s: (s["nodes"], s["demand"]) == ([], 0))


@pytest.mark.redis
def test_a_fleet_whose_broker_stops_stays_as_it_is_and_goes_on_afterwards(
    celery_project: MakeProject, private_redis: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Nodes that load for what waits in the broker would go if its silence were taken for zero."""
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    project, flag = celery_project(SOURCE, broker=broker), tmp_path / "flag"
    loading = project.folder / "loading"
    with fleets_of(project, *AT_ONCE) as fleets:
        running = [project.tasks.Model.wait.delay(str(flag), 3) for _ in range(4)]
        fleets.wait_for_status("q", lambda s: s["running"] == 4)
        loading.touch()
        waiting = [project.tasks.Model.wait.delay(str(flag)) for _ in range(4)]
        fleets.wait_for_status("q", lambda s: s["counts"]["starting"] == 2)
        private_redis.stop()
        flag.touch()
        fleets.wait_for_log("fleet q is held: the broker does not answer")
        assert [outcome(result) for result in running] == ["done"] * 4
        assert "drains" not in fleets.log()
        assert len(workers_of(project)) == 4
        loading.unlink()
        private_redis.start()
        fleets.wait_for_log("fleet q follows its demand again", 20.0)
        assert [outcome(result, 20.0) for result in waiting] == ["done"] * 4
        for what in ("no events at the broker", "no mailbox", "the backlog is unknown"):
            assert fleets.log().count(what) == 1  # however often it was tried
        fleets.wait_for_status("q", lambda s: (s["nodes"], s["demand"]) == ([], 0))


@pytest.mark.redis
def test_a_fleet_with_a_node_that_falls_silent_does_not_shrink_until_it_speaks(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path
) -> None:
    project, flag = celery_project(SOURCE, broker=redis_broker), tmp_path / "flag"
    with fleets_of(project, *AT_ONCE) as fleets:
        results = [project.tasks.Model.wait.delay(str(flag)) for _ in range(4)]
        silent, _ = fleets.wait_for_status("q", lambda s: s["running"] == 4)["nodes"]
        os.kill(silent["pid"], signal.SIGSTOP)
        status = fleets.wait_for_status("q", lambda s: s["state"] == "held")
        assert f"no word from {silent['name']}" in status["reason"]
        flag.touch()
        status = fleets.wait_for_status("q", lambda s: s["running"] == 2)
        assert (status["state"], status["demand"], status["desired"]) == ("held", None, 2)
        assert status["counts"]["ready"] == 2
        assert "fleet q is held: no word from" in fleets.log()
        later = tmp_path / "later"
        results += [project.tasks.Model.wait.delay(str(later)) for _ in range(5)]
        status = fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 4)
        assert (status["state"], status["demand"]) == ("held", None)
        later.touch()
        os.kill(silent["pid"], signal.SIGCONT)
        assert [outcome(result) for result in results] == ["done"] * 9
        fleets.wait_for_status("q", lambda s: (s["nodes"], s["demand"]) == ([], 0))
