"""A real node keeps to what its device's memory allows: the driver is the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from celery_concurrent.gpu import simulated
from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.nvml import FakeHost, compile_library
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import Events, outcome, watching

SOURCE = """
import asyncio, os, time
from pathlib import Path
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
FOLDER = Path(__file__).parent

class OutOfMemoryError(RuntimeError):
    __module__ = "torch"

def until(flag):
    while not (FOLDER / flag).exists():
        time.sleep(0.01)

@app.task(queue="work")
@concurrent(max_inputs=4, target_inputs=2)
def hold(flag):
    until(flag)

@app.task(queue="errors", name="runs_out", bind=True, max_retries=1)
@concurrent(max_inputs=4, target_inputs=2)
def runs_out(self, flag, retries):
    until(flag)
    try:
        raise OutOfMemoryError("Tried to allocate 2.00 GiB")
    except OutOfMemoryError as error:
        if retries:
            raise self.retry(exc=error, countdown=0)
        raise

@app.task(queue="async", name="runs_out_async")
@concurrent(max_inputs=4, target_inputs=2)
async def runs_out_async(flag):
    while not (FOLDER / flag).exists():
        await asyncio.sleep(0.01)
    raise OutOfMemoryError("Tried to allocate 2.00 GiB")
"""
GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Two devices whose memory the test sets; nodes are pinned to the second."""

    host: FakeHost
    pinned: str

    @property
    def environ(self) -> dict[str, str]:
        return {**self.host.environ, "CUDA_VISIBLE_DEVICES": self.pinned}

    def have(self, free: float, *lines: str) -> None:
        """This share of the second one's memory is free; the first one has none left."""
        self.host.has(
            f"gpu 0 GPU-aaaa {80 * GIB} 0 0 NVIDIA A100",
            f"gpu 1 GPU-bbbb {80 * GIB} {round(80 * GIB * free)} 0 NVIDIA A100",
            *lines,
        )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def devices(library: Path, tmp_path: Path) -> Devices:
    made = Devices(host=FakeHost(library, tmp_path / "host.txt"), pinned="GPU-bbbb")
    made.have(0.9)
    return made


@pytest.fixture
def project(celery_project: MakeProject, redis_broker: Broker) -> Project:
    return celery_project(SOURCE, broker=redis_broker)


@pytest.fixture
def events(project: Project) -> Iterator[Events]:
    with watching(project) as heard:
        yield heard


def slots_of(events: Events, node: Node, task: Any) -> dict[str, int]:
    told: dict[str, int] = events.states(node.name)[-1]["tasks"][task.name]
    return told


def wait_for_note(events: Events, node: Node, words: str) -> dict[str, Any]:
    """The latest event once its note holds these words."""

    def latest() -> dict[str, Any] | None:
        told = events.states(node.name)[-1]
        return told if words in (told["note"] or "") else None

    found = wait_for(latest, what=lambda: f"{words!r}: {events.states(node.name)[-1:]}")
    assert found is not None
    return found


@pytest.mark.parametrize("pool", ["concurrent", "eventlet"])
def test_with_little_memory_left_a_node_stays_at_target_until_it_is_back(
    project: Project, celery_node: StartNode, events: Events, devices: Devices, pool: str
) -> None:
    if pool == "eventlet":
        pytest.importorskip("eventlet")
    node = celery_node(project, "-Q", "work", pool=pool, env=devices.environ)
    hold = project.tasks.hold
    told = events.wait_for_state(node.name, state="ready", note=None)
    assert slots_of(events, node, hold)["slots"] == 4
    wait_for(lambda: events.states(node.name)[-1]["devices"], what="the memory")
    told = events.states(node.name)[-1]
    device = told["devices"]["GPU-bbbb"]
    assert (device["total"], device["free"]) == (80 * GIB, round(80 * GIB * 0.9))

    devices.have(0.0999)
    told = wait_for_note(events, node, "no new input above target")
    assert told["note"] == "10.0% of the device's memory is free: no new input above target"
    held = [hold.delay("first") for _ in range(6)]
    events.wait_for_state(node.name, running=2)
    seen = len(events.states(node.name))
    wait_for(lambda: len(events.states(node.name)) > seen + 1, what="two events more")
    assert max(event["running"] for event in events.states(node.name)) == 2
    assert slots_of(events, node, hold) == {"slots": 2, "target": 2, "running": 2, "reserved": 0}

    devices.have(0.1)
    events.wait_for_state(node.name, running=4, note=None)
    assert "device memory is back" in node.log()
    (project.folder / "first").touch()
    for result in held:
        outcome(result)


def test_what_runs_above_target_runs_on_and_nothing_takes_its_place(
    project: Project, celery_node: StartNode, events: Events, devices: Devices
) -> None:
    node = celery_node(project, "-Q", "work", env=devices.environ)
    hold = project.tasks.hold
    early = [hold.delay("early") for _ in range(4)]
    events.wait_for_state(node.name, running=4)
    devices.have(0.01)
    late = [hold.delay("late") for _ in range(4)]
    wait_for_note(events, node, "1.0% of the device's memory")
    assert slots_of(events, node, hold)["running"] == 4
    (project.folder / "early").touch()
    for result in early:
        outcome(result)
    events.wait_for_state(node.name, running=2, finished=4)
    (project.folder / "late").touch()
    for result in late:
        outcome(result)
    node.stop()


@pytest.mark.parametrize("how", ["sync", "retried", "async"])
def test_an_out_of_memory_error_lowers_the_limit_once_and_is_told(
    project: Project, celery_node: StartNode, events: Events, devices: Devices, how: str
) -> None:
    node = celery_node(project, "-Q", "work,errors,async", env=devices.environ)
    task = project.tasks.runs_out_async if how == "async" else project.tasks.runs_out
    args = ("go",) if how == "async" else ("go", how == "retried")
    failing = [task.delay(*args) for _ in range(4)]
    wait_for(lambda: slots_of(events, node, task)["running"] == 4, what="four inputs")
    (project.folder / "go").touch()
    for result in failing:
        assert str(outcome(result)) == "Tried to allocate 2.00 GiB"
    told = wait_for_note(events, node, "ran out of device memory")
    assert told["note"] == f"an input of {task.name} ran out of device memory: its limit is 2"
    assert slots_of(events, node, task)["slots"] == 2
    assert slots_of(events, node, project.tasks.hold)["slots"] == 4
    assert node.log().count("this node runs fewer inputs") == 1
    outcome(project.tasks.hold.delay("go"))


def test_a_driver_that_fails_is_said_once_and_stops_nothing(
    project: Project, celery_node: StartNode, events: Events, devices: Devices
) -> None:
    devices.have(0.01)
    node = celery_node(project, "-Q", "work", env=devices.environ)
    events.wait_for_state(node.name, state="ready")
    wait_for_note(events, node, "no new input above target")
    devices.have(0.01, "fault nvmlDeviceGetMemoryInfo_v2 15 1")
    events.wait_for_state(node.name, note=None, devices=None)
    assert node.log().count("device memory is not watched: device GPU-bbbb") == 1
    (project.folder / "go").touch()
    outcome(project.tasks.hold.delay("go"))
    node.signal(15)
    assert node.wait() == 0


def test_without_a_driver_a_pinned_node_works(
    project: Project, celery_node: StartNode, devices: Devices
) -> None:
    devices.host.has("fault nvmlInitWithFlags 9")
    node = celery_node(project, "-Q", "work", env=devices.environ)
    node.wait_for_log("device memory is not watched: the driver is not loaded")
    (project.folder / "go").touch()
    outcome(project.tasks.hold.delay("go"))


def test_simulated_devices_are_watched_as_real_ones_are(
    project: Project, celery_node: StartNode, events: Events, tmp_path: Path
) -> None:
    state = tmp_path / "gpus.json"
    environ = {simulated.STATE: str(state), "CUDA_VISIBLE_DEVICES": "GPU-simulated-1"}
    node = celery_node(project, "-Q", "work", env=environ)
    events.wait_for_state(node.name, state="ready", note=None)
    simulated.change(state, 1, memory_free=GIB)
    told = wait_for_note(events, node, "no new input above target")
    assert told["devices"] == {
        "GPU-simulated-1": {
            "name": "Simulated GPU",
            "free": GIB,
            "total": 24 * GIB,
            "utilisation": 0,
        }
    }
    simulated.change(state, 1, fault="fell off the bus")
    node.wait_for_log("device memory is not watched: device GPU-simulated-1: fell off the bus")


def test_the_margin_is_a_setting(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, devices: Devices
) -> None:
    project = celery_project(
        f"{SOURCE}\napp.conf.concurrent_gpu_margin = 0.5\n", broker=redis_broker
    )
    devices.have(0.4)
    with watching(project) as events:
        node = celery_node(project, "-Q", "work", env=devices.environ)
        events.wait_for_state(node.name, state="ready")
        wait_for_note(events, node, "40.0% of the device's memory is free")


def test_a_margin_that_cannot_work_stops_the_node_at_its_start(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(
        f"{SOURCE}\napp.conf.concurrent_gpu_margin = 10\n", broker=redis_broker
    )
    node = celery_node(project, "-Q", "work", ready=False)
    assert node.wait(30) == 1
    assert "concurrent_gpu_margin=10 must lie in 0.0..1.0" in node.log()


def test_a_node_that_is_pinned_by_number_says_that_it_is_not_watched(
    project: Project, celery_node: StartNode
) -> None:
    node = celery_node(project, "-Q", "work", env={"CUDA_VISIBLE_DEVICES": "0"})
    assert "device memory is not watched: CUDA_VISIBLE_DEVICES names no UUIDs" in node.log()
