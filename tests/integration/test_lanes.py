"""A full function does not slow down another that has its own queue in the same node."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for

SOURCE = """
import asyncio, time
from celery import Celery
from celery_concurrent import concurrent
from kombu import Queue

app = Celery(__name__)
app.conf.task_default_queue_type = "{queue_type}"
{settings}

def note(path):
    with open(path, "a") as told:
        told.write("x")

@app.task(queue="first")
@concurrent(max_inputs=10)
async def async_fill(path):
    note(path)
    await asyncio.sleep(60)

@app.task(queue="second")
@concurrent(max_inputs=10)
def sync_fill(path):
    note(path)
    for _ in range(600):
        time.sleep(0.1)

@app.task(queue="third")
@concurrent(max_inputs=2)
async def quick(sent):
    return time.time() - sent
"""
QUORUM = "app.conf.worker_detect_quorum_queues = True"


def latencies(project: Project, count: int) -> list[float]:
    """From publishing to the start of each of some inputs, one after another, sorted."""
    found = []
    for _ in range(count):
        result = project.tasks.quick.delay(time.time())
        wait_for(result.ready, what="a quick input")
        found.append(float(result.result))
    return sorted(found)


@pytest.mark.timing
@pytest.mark.parametrize(
    ("kind", "queue_type"),
    [
        pytest.param("redis", "classic", marks=pytest.mark.redis),
        pytest.param("rabbitmq", "classic", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq", "quorum", marks=pytest.mark.rabbitmq),
    ],
)
def test_the_latency_beside_saturated_functions_is_that_of_an_idle_node(
    celery_project: MakeProject,
    celery_node: StartNode,
    request: pytest.FixtureRequest,
    kind: str,
    queue_type: str,
) -> None:
    broker: Broker = request.getfixturevalue(f"{kind}_broker")
    source = SOURCE.format(queue_type=queue_type, settings=QUORUM if queue_type == "quorum" else "")
    project = celery_project(source, broker=broker)
    celery_node(project, "-Q", "first,second,third")
    latencies(project, 5)
    idle = latencies(project, 40)
    told = project.folder / "told"
    for _ in range(50):
        project.tasks.async_fill.delay(str(told))
        project.tasks.sync_fill.delay(str(told))
    wait_for(lambda: told.exists() and len(told.read_text()) == 20, what="two full functions")
    busy = latencies(project, 40)
    assert len(told.read_text()) == 20, "more run than there are slots"
    assert statistics.median(busy) < 2 * statistics.median(idle) + 0.005
    assert busy[-4] < 2 * idle[-4] + 0.02  # nine tenths
