"""Fleets on devices: held by who uses them, left when they are lost, watched for memory.

The driver is the test's own; nodes, autoscalers, broker and locks are real.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.services.fixtures import MakeProject
from tests.services.fleets import Fleets, end_nodes, fleet_command, nodes_of
from tests.services.nvml import FakeHost, compile_library
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for
from tests.services.witness import outcome

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]

SOURCE = """
    import os, time
    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q")
    @scaling(max_nodes=4, scaledown_window=2, gpus=1)
    @concurrent(max_inputs=4, target_inputs=2)
    def work(flag, fails=False):
        while not os.path.exists(flag):
            time.sleep(0.02)
        if fails:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return os.environ["CUDA_VISIBLE_DEVICES"]
"""
GIB = 1024**3
Start = Callable[..., Fleets]


class Host(FakeHost):
    """Devices with the UUIDs GPU-a, GPU-b and on; what is free, and what fails, the test sets."""

    def has_devices(self, *free: float, faults: tuple[str, ...] = ()) -> None:
        gpus = [
            f"gpu {index} GPU-{'abcd'[index]} {80 * GIB} {round(80 * GIB * share)} 0 NVIDIA A100"
            for index, share in enumerate(free)
        ]
        self.has(*gpus, *faults)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def host(library: Path, tmp_path: Path) -> Host:
    return Host(library, tmp_path / "host.txt")


@pytest.fixture
def environ(host: Host, tmp_path: Path) -> dict[str, str]:
    """What all autoscalers of this test share: the driver, and the place for locks."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    return {**host.environ, "TMPDIR": str(runtime)}


@pytest.fixture
def projects(
    celery_project: MakeProject, redis_server: RedisServer
) -> Iterator[Callable[[], Project]]:
    """Makes apps, each with its own broker; what is left of them is ended with the test."""
    with ExitStack() as stack:

        def make() -> Project:
            url = redis_server.url(redis_server.fresh_db())
            broker = Broker(kind="redis", url=url, backend=url)
            project = celery_project(SOURCE, broker=broker)
            stack.callback(end_nodes, project)
            return project

        yield make


@pytest.fixture
def start(environ: dict[str, str]) -> Iterator[Start]:
    """Starts autoscalers on the test's devices."""
    with ExitStack() as stack:

        def run(project: Project, *options: str) -> Fleets:
            fleets = Fleets(project, "-l", "INFO", *options, env=environ)
            stack.callback(fleets.kill)
            fleets.wait_until_ready()
            return fleets

        yield run


def uuids(node: dict[str, Any]) -> list[str]:
    """The devices that a node of a status is pinned to."""
    return [device["uuid"] for device in node["devices"]]


def table(project: Project) -> str:
    """What ``fleet status`` prints."""
    return fleet_command(project, "status").stdout


def test_nodes_that_outlive_their_autoscaler_keep_their_device_for_their_app(
    projects: Callable[[], Project], start: Start, host: Host, tmp_path: Path
) -> None:
    host.has_devices(0.9)
    shop, rival, flag = projects(), projects(), tmp_path / "flag"
    knobs = ("--nodes-per-gpu", "3", "--scaledown-window", "1")
    first = start(shop, "--max-nodes", "2", *knobs)
    inputs = [shop.tasks.work.delay(str(flag)) for _ in range(6)]
    status = first.wait_for_status("q", lambda s: s["running"] == 6)
    pids = sorted(node["pid"] for node in status["nodes"])
    assert [uuids(node) for node in status["nodes"]] == [["GPU-a"]] * 2
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: sorted(nodes_of(shop)) == pids, what="the end of the template")

    other = start(rival)
    wanted = rival.tasks.work.delay(str(flag))
    status = other.wait_for_status("q", lambda s: s["state"] == "short")
    assert status["nodes"] == []
    assert "1 taken by others" in status["missing"]
    holders = ", ".join(map(str, pids))
    owner = shop.folder / "state" / "celery-concurrent"
    assert f"device GPU-a is taken by processes {holders} of {owner}" in status["missing"]

    second = start(shop, "--max-nodes", "3", *knobs)
    status = second.wait_for_status("q", lambda s: s["counts"]["ready"] == 3)
    assert sorted(node["adopted"] for node in status["nodes"]) == [False, True, True]
    assert [uuids(node) for node in status["nodes"]] == [["GPU-a"]] * 3
    assert other.status("q")["nodes"] == []

    flag.touch()
    assert {result.get(timeout=30) for result in inputs} == {"GPU-a"}
    # The second one lives on, and has no node: its device is anybody's.
    assert wanted.get(timeout=60) == "GPU-a"
    assert second.status("q")["nodes"] == []


def test_a_fleet_that_wanted_no_device_at_the_start_gets_one_when_it_is_told_to(
    projects: Callable[[], Project], start: Start, host: Host
) -> None:
    host.has_devices(0.9)
    project = projects()
    fleets = start(project, "--gpus", "0", "--min-nodes", "1")
    fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 1)
    fleets.command("set", "q", "--gpus", "1", "--min-nodes", "2")
    fleets.wait_for_status("q", lambda s: ["GPU-a"] in [uuids(node) for node in s["nodes"]])
    assert "GPU-a" in table(project)


def test_a_lost_device_is_left_and_nothing_is_lost_with_it(
    projects: Callable[[], Project], start: Start, host: Host, tmp_path: Path
) -> None:
    host.has_devices(0.9, 0.9, 0.9)
    project, flag = projects(), tmp_path / "flag"
    fleets = start(project, "--min-nodes", "2", "--max-nodes", "2")
    inputs = [project.tasks.work.delay(str(flag)) for _ in range(8)]
    status = fleets.wait_for_status("q", lambda s: s["running"] == 8)
    assert sorted(uuids(node) for node in status["nodes"]) == [["GPU-a"], ["GPU-b"]]

    lost = ("fault nvmlDeviceGetHandleByIndex_v2 15 0", "fault nvmlDeviceGetHandleByUUID 15 0")
    host.has_devices(0.9, 0.9, 0.9, faults=lost)
    status = fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 2 < len(s["nodes"]))
    states = {uuids(node)[0]: node["state"] for node in status["nodes"]}
    assert states == {"GPU-a": "draining", "GPU-b": "ready", "GPU-c": "ready"}
    assert "no node starts on device GPU-a: GPU is lost" in table(project)
    assert fleets.log().count("device GPU-a: GPU is lost (NVML error 15)") == 1

    flag.touch()
    devices = [result.get(timeout=30) for result in inputs]
    assert devices.count("GPU-a") == devices.count("GPU-b") == 4
    status = fleets.wait_for_status("q", lambda s: len(s["nodes"]) == 2)
    assert (status["crashes"], status["missing"]) == (0, None)
    # With another one gone, what is left is said; with all back, all is well.
    host.has_devices(0.9, 0.9, 0.9, faults=(*lost, "fault nvmlDeviceGetHandleByIndex_v2 15 1"))
    status = fleets.wait_for_status("q", lambda s: s["state"] == "short")
    assert "2 lost" in status["missing"]
    assert project.tasks.work.delay(str(flag)).get(timeout=30) == "GPU-c"
    host.has_devices(0.9, 0.9, 0.9)
    fleets.wait_for_status("q", lambda s: s["state"] == "ok" and s["counts"]["ready"] == 2)
    assert "no node starts" not in table(project)


def test_short_memory_and_an_out_of_memory_error_are_seen_in_the_fleet(
    projects: Callable[[], Project], start: Start, host: Host, tmp_path: Path
) -> None:
    host.has_devices(0.05)
    project, flag = projects(), tmp_path / "flag"
    fleets = start(project, "--min-nodes", "1", "--max-nodes", "1")
    (node,) = fleets.wait_for_status("q", lambda s: s["nodes"] and s["nodes"][0]["note"])["nodes"]
    assert node["note"] == "5.0% of the device's memory is free: no new input above target"
    inputs = [project.tasks.work.delay(str(flag), fails=True) for _ in range(4)]
    (node,) = fleets.wait_for_status("q", lambda s: s["running"] == 2)["nodes"]
    (device,) = node["devices"]
    assert (device["uuid"], device["free"], device["total"]) == ("GPU-a", 4 * GIB, 80 * GIB)
    printed = table(project)
    assert "4.0 of 80.0 GiB" in printed
    assert node["note"] in printed

    host.has_devices(0.9)
    (node,) = fleets.wait_for_status("q", lambda s: s["running"] == 4)["nodes"]
    assert node["note"] is None
    flag.touch()
    for result in inputs:
        assert "CUDA out of memory" in str(outcome(result))
    (node,) = fleets.wait_for_status("q", lambda s: s["nodes"][0]["note"])["nodes"]
    assert node["note"].endswith("ran out of device memory: its limit is 2")
    assert node["slots"] == 2
    assert "ran out of device memory" in table(project)
