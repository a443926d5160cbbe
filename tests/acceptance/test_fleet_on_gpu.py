"""Fleets on a real GPU: the driver, CUDA, its memory and its errors are the machine's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_concurrent.gpu.device import Device
from tests.services.cuda import CUDA
from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, fleet_command
from tests.services.nvml import Reader
from tests.services.project import Project
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]

SOURCE = (
    CUDA
    + """
import os, time
from celery import Celery
from celery_concurrent import concurrent, scaling

app = Celery()

@app.task(queue="q")
@scaling(max_nodes=2, scaledown_window=1, gpus=1)
@concurrent(max_inputs=4, target_inputs=1)
def use(size=0, until=None):
    seen = open_device()
    memory = take(size) if size else None
    while until and not os.path.exists(until):
        time.sleep(0.02)
    if memory:
        give_back(memory)
    return os.getpid(), seen, os.environ["CUDA_VISIBLE_DEVICES"]
"""
)
GIB = 1024**3
Start = Callable[..., Fleets]


@pytest.fixture
def device() -> Device:
    """The machine's first GPU that a node may have."""
    with Reader() as reader:
        usable = [device for device in reader.read().devices if device.usable]
    if not usable:
        pytest.skip("no GPU with its driver here")
    assert usable[0].memory is not None
    return usable[0]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Fleets] = []

    def run(project: Project, *options: str) -> Fleets:
        fleets = Fleets(project, "-l", "INFO", *options)
        running.append(fleets)
        fleets.wait_until_ready()
        return fleets

    yield run
    for fleets in running:
        fleets.kill()


def memory_of(device: Device) -> int:
    assert device.memory is not None
    return device.memory.total


def memory_by_process(device: Device) -> dict[int, int]:
    """What each process has of it; a driver in a container may tell of other numbers."""
    with Reader() as reader:
        (now,) = [d for d in reader.read().devices if d.uuid == device.uuid]
    return {process.pid: process.memory or 0 for process in now.processes or ()}


def test_a_forked_node_sees_the_device_that_it_is_pinned_to_and_no_other(
    fleet_project: MakeFleetProject, start: Start, device: Device
) -> None:
    project = fleet_project(SOURCE)
    fleets = start(project)
    fleets.wait_for_log("nodes are forked from process")
    _, seen, pinned = project.tasks.use.delay().get(timeout=60)
    assert pinned == device.uuid
    assert seen == [device.uuid]
    assert " forked pid=" in fleets.log()


def test_a_node_of_an_app_that_initialises_cuda_is_a_fresh_process(
    fleet_project: MakeFleetProject, start: Start, device: Device
) -> None:
    project = fleet_project(f"{SOURCE}\ninitialise()\n")
    fleets = start(project)
    fleets.wait_for_log("nodes are forked from process")
    _, seen, _ = project.tasks.use.delay().get(timeout=60)
    assert seen == [device.uuid]
    assert " started fresh " in fleets.log()
    assert "the app's import initialises CUDA" in fleets.log()


def test_nodes_that_share_a_device_are_both_on_it_and_leave_nothing(
    fleet_project: MakeFleetProject, start: Start, device: Device, tmp_path: Path
) -> None:
    project, flag = fleet_project(SOURCE), tmp_path / "flag"
    fleets = start(project, "--nodes-per-gpu", "2", "--max-nodes", "2")
    held = [project.tasks.use.delay(GIB, str(flag)) for _ in range(8)]
    status = fleets.wait_for_status("q", lambda s: s["running"] == 8)
    pids = {node["pid"] for node in status["nodes"]}
    wait_for(lambda: memory_by_process(device).keys() >= pids, what="both in the driver's list")
    flag.touch()
    assert {result.get(timeout=30)[0] for result in held} == pids
    fleets.wait_for_status("q", lambda s: s["nodes"] == [])
    wait_for(lambda: not memory_by_process(device).keys() & pids, what="the device without them")


def test_little_memory_holds_the_node_at_target_until_it_is_back(
    fleet_project: MakeFleetProject, start: Start, device: Device, tmp_path: Path
) -> None:
    project, first, later = fleet_project(SOURCE), tmp_path / "first", tmp_path / "later"
    fleets = start(project, "--min-nodes", "1", "--max-nodes", "1")
    fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 1)
    hog = project.tasks.use.delay(round(memory_of(device) * 0.93), str(first))
    (node,) = fleets.wait_for_status("q", lambda s: s["nodes"] and s["nodes"][0]["note"])["nodes"]
    assert "of the device's memory is free: no new input above target" in node["note"]
    assert node["slots"] == 1
    assert node["devices"][0]["uuid"] == device.uuid
    assert node["note"] in fleet_command(project, "status").stdout
    waiting = [project.tasks.use.delay(GIB, str(later)) for _ in range(4)]
    first.touch()
    hog.get(timeout=30)
    (node,) = fleets.wait_for_status("q", lambda s: s["running"] == 4)["nodes"]
    assert node["note"] is None
    later.touch()
    for result in waiting:
        result.get(timeout=30)


def test_a_killed_nodes_memory_is_there_for_the_node_that_takes_its_place(
    fleet_project: MakeFleetProject, start: Start, device: Device, tmp_path: Path
) -> None:
    project, flag = fleet_project(SOURCE), tmp_path / "flag"
    fleets = start(project, "--min-nodes", "1", "--max-nodes", "1")
    size = round(memory_of(device) * 0.8)
    held = project.tasks.use.delay(size, str(flag))
    (node,) = fleets.wait_for_status("q", lambda s: s["running"] == 1)["nodes"]
    wait_for(lambda: memory_by_process(device).get(node["pid"], 0) >= size, what="its memory")
    os.kill(node["pid"], signal.SIGKILL)
    flag.touch()
    assert held.get(timeout=60)[0] != node["pid"]


TORCH = """
    import os, time
    import torch
    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q", autoretry_for=(torch.OutOfMemoryError,), max_retries=20,
              default_retry_delay=1)
    @scaling(max_nodes=1, scaledown_window=60, gpus=1)
    @concurrent(max_inputs=4, target_inputs=2)
    def fills(share):
        total = torch.cuda.get_device_properties(0).total_memory
        held = torch.empty(int(total * share), dtype=torch.uint8, device="cuda")
        time.sleep(2)
        del held
        torch.cuda.empty_cache()
        return os.getpid()
"""


def test_torchs_out_of_memory_error_lowers_the_limit_and_all_inputs_end_well(
    fleet_project: MakeFleetProject, start: Start, device: Device
) -> None:
    pytest.importorskip("torch")
    project = fleet_project(TORCH)
    fleets = start(project)
    results = [project.tasks.fills.delay(0.4) for _ in range(6)]
    (node,) = fleets.wait_for_status(
        "q", lambda s: s["nodes"] and "ran out" in (s["nodes"][0]["note"] or ""), timeout=90
    )["nodes"]
    assert node["slots"] == 2
    assert len({result.get(timeout=90) for result in results}) == 1


#: What each library raises when its device is full; run in a process of its own.
FULL: dict[str, str] = {
    "torch": "torch.empty(2**45, dtype=torch.uint8, device='cuda')",
    "cupy": "cupy.empty(2**45, dtype='u1')",
    "jax": "import jax.numpy; jax.numpy.zeros(2**45, dtype='uint8').block_until_ready()",
}


@pytest.mark.parametrize("library", FULL)
def test_a_librarys_own_error_is_known(library: str, device: Device) -> None:
    pytest.importorskip(library)
    code = f"""
import {library}
from celery_concurrent.gpu.guard import is_out_of_memory
try:
    {FULL[library]}
except Exception as error:
    kind = type(error)
    print(kind.__module__, kind.__name__, str(error)[:200], is_out_of_memory(error), sep="|")
"""
    env: dict[str, Any] = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("|True"), done.stdout + done.stderr
