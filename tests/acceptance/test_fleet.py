"""Fleets of real nodes, on a real broker, kept by a real autoscaler."""

from __future__ import annotations

import os
import resource
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_concurrent.autoscaler.local.folder import broker_of, state_folder
from celery_concurrent.autoscaler.overrides import Overrides
from tests.services.fixtures import MakeFleetProject, MakeProject
from tests.services.fleets import Fleets, end_nodes, fleet_command, nodes_of
from tests.services.process import free_port
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]

SOURCE = """
    import asyncio
    import os

    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q")
    @scaling(min_nodes=0, max_nodes=8, scaledown_window=2)
    @concurrent(max_inputs=20)
    async def wait(flag):
        while not os.path.exists(flag):
            await asyncio.sleep(0.05)
        return os.getpid()
"""


@pytest.fixture
def project(fleet_project: MakeFleetProject) -> Project:
    return fleet_project(SOURCE)


@pytest.fixture
def fleets(project: Project) -> Iterator[Fleets]:
    """Its autoscaler."""
    running = Fleets(project, "-l", "INFO")
    running.wait_until_ready()
    yield running
    running.kill()


def test_a_hundred_inputs_bring_five_nodes_one_more_a_sixth_and_then_they_leave(
    project: Project, fleets: Fleets, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    waiting = [project.tasks.wait.delay(str(flag)) for _ in range(100)]
    status = fleets.wait_for_status("q", lambda s: s["running"] == 100)
    assert [node["running"] for node in status["nodes"]] == [20] * 5
    waiting.append(project.tasks.wait.delay(str(flag)))
    status = fleets.wait_for_status("q", lambda s: s["running"] == 101)
    assert len(status["nodes"]) == 6
    flag.touch()
    assert len({result.get(timeout=30) for result in waiting}) == 6
    fleets.wait_for_status("q", lambda s: s["nodes"] == [] and s["demand"] == 0)
    fleets.signal(signal.SIGINT)
    assert fleets.wait(30) == 0
    assert nodes_of(project) == []
    assert "DeprecationWarning" not in fleets.log(), "no worker says so of the same app"


def test_what_a_killed_node_had_runs_on_the_next_one(
    project: Project, fleets: Fleets, tmp_path: Path
) -> None:
    """On Redis nobody else would notice; the visibility timeout is an hour."""
    flag = tmp_path / "flag"
    result = project.tasks.wait.delay(str(flag))
    fleets.wait_for_status("q", lambda s: s["running"] == 1)
    with redis.Redis.from_url(project.broker.url, decode_responses=True) as client:
        leases: Any = client.zrange("unacked.leases", 0, -1)
    assert "autoscaler" in {lease.partition(".")[0] for lease in leases}, "it reaps, too"
    killed = nodes_of(project)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    flag.touch()
    assert result.get(timeout=30) not in killed


def test_a_change_reaches_the_running_autoscaler_and_survives_it(
    project: Project, fleets: Fleets, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    fleets.command("set", "q", "--max-nodes", "2")
    waiting = [project.tasks.wait.delay(str(flag)) for _ in range(100)]
    status = fleets.wait_for_status("q", lambda s: (s["running"], s["backlog"]) == (40, 60))
    assert len(status["nodes"]) == 2
    assert status["overrides"] == {"max_nodes": 2}
    wrong = fleets.command("set", "q", "--max-nodes", "-1", check=False)
    assert wrong.returncode == 1
    assert "max_nodes=-1" in wrong.stderr
    second = Fleets(project, "-l", "INFO")
    try:
        second.wait_for_log("waiting to take over", 30)
        fleets.kill()
        assert len(nodes_of(project)) >= 2  # nodes outlive it
        goes_on(project, second, flag)
    finally:
        second.kill()
    for result in waiting:
        result.get(timeout=30)


def goes_on(project: Project, second: Fleets, flag: Path) -> None:
    """Another autoscaler adopts the nodes, with the overrides; it ends with all of them."""
    second.wait_until_ready()
    status = second.wait_for_status("q", lambda s: s["running"] == 40)
    assert [node["adopted"] for node in status["nodes"]] == [True, True]
    assert status["overrides"] == {"max_nodes": 2}
    flag.touch()
    second.wait_for_status("q", lambda s: s["demand"] == 0)
    second.signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert nodes_of(project) == []


def test_it_may_hold_more_nodes_than_a_shell_lets_programs_open_files(project: Project) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Of this process, for the autoscaler to inherit: it needs some itself.
    low = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        fleets = Fleets(project)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        fleets.wait_until_ready()
        raised, _ = resource.prlimit(fleets.pid, resource.RLIMIT_NOFILE)
        assert raised > low
    finally:
        fleets.kill()


def test_what_a_killed_autoscaler_left_is_gone_after_drain_all(
    project: Project, fleets: Fleets, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    result = project.tasks.wait.delay(str(flag))
    fleets.wait_for_status("q", lambda s: s["running"] == 1)
    fleets.kill()
    flag.touch()
    done = fleet_command(project, "drain", "--all")
    assert "1 nodes that one had left are gone" in done.stdout
    assert result.get(timeout=10)
    wait_for(lambda: nodes_of(project) == [], what="no process left")


def test_deployments_of_one_name_at_two_brokers_leave_each_other_their_nodes(
    project: Project, fleets: Fleets, redis_server: RedisServer, tmp_path: Path
) -> None:
    url = redis_server.url(redis_server.fresh_db())
    other = replace(project, broker=Broker(kind="redis", url=url, backend=url))
    flag = tmp_path / "flag"
    result = project.tasks.wait.delay(str(flag))
    fleets.wait_for_status("q", lambda s: s["running"] == 1)
    second = Fleets(other, "--min-nodes", "1")
    try:
        second.wait_until_ready()
        fleets.kill()
        wait_for(second.lives, what="a node of the other deployment")
        assert second.stop() == 0
    finally:
        second.kill()
    assert "adopted" not in second.log()
    flag.touch()
    assert result.get(timeout=10)
    done = fleet_command(project, "drain", "--all")
    assert "1 nodes that one had left are gone" in done.stdout


def test_nobody_answers_where_nobody_runs(project: Project) -> None:
    done = fleet_command(project, "status", check=False)
    assert done.returncode == 1
    assert "celery -A app autoscaler" in done.stderr


def test_a_broker_that_does_not_answer_is_named_without_its_password(
    celery_project: MakeProject, redis_url: str
) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    project = celery_project(SOURCE, broker=Broker(kind="redis", url=url, backend=redis_url))
    done = fleet_command(project, "status", check=False)
    assert done.returncode == 1
    assert f"the broker at {url.replace('secret', '**')} does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_nodes_share_devices_and_what_does_not_fit_is_said(project: Project) -> None:
    knobs = ("--min-nodes", "8", "--gpus", "1", "--nodes-per-gpu", "2", "--scaledown-window", "60")
    fleets = Fleets(project, "--simulate-gpus", "4", *knobs)
    try:
        fleets.wait_until_ready()
        status = fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 8, timeout=60)
        devices = Counter(device["uuid"] for node in status["nodes"] for device in node["devices"])
        assert devices == {f"GPU-simulated-{number}": 2 for number in range(4)}
        fleets.command("set", "q", "--min-nodes", "9", "--max-nodes", "9")
        status = fleets.wait_for_status("q", lambda s: s["state"] == "short")
        assert len(status["nodes"]) == 8
        assert "4 devices: 4 used by this fleet" in status["missing"]
        fleets.signal(signal.SIGTERM)
        assert fleets.wait(30) == 0
        assert nodes_of(project) == []
    finally:
        fleets.kill()


def test_an_app_may_have_modules_called_gpu_and_autoscaler(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path
) -> None:
    """They lie in the folder that Celery puts first on the path."""
    for name in ("gpu", "autoscaler"):
        (tmp_path / f"{name}.py").write_text(f"whose = 'own {name}'\n")
    source = textwrap.dedent(SOURCE) + textwrap.dedent("""
        import autoscaler, gpu

        @app.task(queue="q")
        def whose():
            return [gpu.whose, autoscaler.whose]
    """)
    project = celery_project(source, broker=redis_broker)
    del sys.modules["gpu"], sys.modules["autoscaler"]  # the test needs them no more
    fleets = Fleets(project, "--simulate-gpus", "1", "--gpus", "1", "--min-nodes", "1")
    try:
        fleets.wait_until_ready()
        told = project.tasks.whose.delay().get(timeout=30)
        assert told == ["own gpu", "own autoscaler"]
        (node,) = fleets.status("q")["nodes"]
        assert [device["uuid"] for device in node["devices"]] == ["GPU-simulated-0"]
        assert fleet_command(project, "status").returncode == 0
        fleets.signal(signal.SIGTERM)
        assert fleets.wait(30) == 0
        assert nodes_of(project) == []
    finally:
        fleets.kill()
        end_nodes(project)


def test_overrides_that_the_app_has_outgrown_are_left_out_and_told(project: Project) -> None:
    override(project, min_nodes=9)
    fleets = Fleets(project)
    try:
        fleets.wait_until_ready()
        told = "fleet q starts without its overrides min_nodes=9"
        assert told in fleets.log()
        assert "overrides.json" in fleets.log().partition(told)[2]
        assert fleets.status("q")["overrides"] == {}
        fleets.command("set", "q", "--reset", "--max-nodes", "3")
        assert fleets.status("q")["overrides"] == {"max_nodes": 3}
    finally:
        fleets.kill()


def override(project: Project, **knobs: Any) -> None:
    """As ``fleet set q`` before the autoscaler ended."""
    here = {"XDG_STATE_HOME": str(project.folder / "state")}
    folder = state_folder(project.name, broker_of(project.app), here)
    folder.mkdir(parents=True)
    Overrides(folder / "overrides.json").keep(knobs={"q": knobs}, drained=())


def test_a_queue_that_no_worker_can_be_told_of_is_refused_at_the_start(
    celery_project: MakeProject, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE.replace('queue="q"', 'queue="a,b"'), broker=redis_broker)
    fleets = Fleets(project)
    assert fleets.wait(30) == 1
    assert "queue 'a,b' cannot have a fleet" in fleets.log()
    assert "Rename the queue" in fleets.log()


def test_a_fleet_that_wants_devices_fails_at_the_start_where_there_are_none(
    project: Project,
) -> None:
    fleets = Fleets(project, "--gpus", "1")
    assert fleets.wait(30) == 1
    assert "wants gpus=1, and this host has none" in fleets.log()
    override(project, gpus=2)
    fleets = Fleets(project)
    assert fleets.wait(30) == 1
    assert "wants gpus=2, and this host has none" in fleets.log()
