"""An input that has ended is gone, whether or not Python collects its cycles."""

from __future__ import annotations

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker

SOURCE = """
import asyncio, gc, time
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)

@app.task
@concurrent(max_inputs=4)
async def on_loop():
    gc.disable()
    await asyncio.sleep(0)

@app.task
@concurrent(max_inputs=4)
def on_threads():
    gc.disable()

@app.task
@concurrent(max_inputs=1)
def kept():
    return sum(type(each).__name__ == "Input" for each in gc.get_objects())
"""


@pytest.mark.parametrize("pool", ["concurrent", "eventlet"])
@pytest.mark.parametrize("task", ["on_loop", "on_threads"])
def test_inputs_that_have_ended_are_gone_without_the_collector(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, pool: str, task: str
) -> None:
    if pool == "eventlet":
        pytest.importorskip("eventlet")
    project = celery_project(SOURCE, broker=redis_broker)
    celery_node(project, pool=pool)
    for result in [getattr(project.tasks, task).delay() for _ in range(50)]:
        result.get(timeout=20)
    # Its own, and what is just settling.
    assert project.tasks.kept.delay().get(timeout=20) <= 5
