"""Many inputs at once in one node: the figures that the project promises."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import group

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker

SOURCE = """
import asyncio, time
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)

@app.task
@concurrent(max_inputs=500)
async def on_the_loop():
    start = time.time()
    await asyncio.sleep(0.5)
    return start

@app.task
@concurrent(max_inputs=50)
def on_threads():
    start = time.time()
    time.sleep(0.5)
    return start
"""

pytestmark = pytest.mark.timing


def seconds_of(task: Any, count: int, start_node: Any) -> float:
    """Queue the inputs, start a node; from the first one's start until all results are here."""
    results = group(task.s() for _ in range(count)).apply_async()
    start_node()
    starts = results.get(timeout=60)
    return float(time.time() - min(starts))


def test_500_async_inputs_of_half_a_second_end_within_2_s(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=broker)
    took = seconds_of(project.tasks.on_the_loop, 500, lambda: celery_node(project))
    assert took < 2.0


def test_100_sync_inputs_of_half_a_second_50_at_once_end_within_2_and_a_half_s(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=broker)
    took = seconds_of(project.tasks.on_threads, 100, lambda: celery_node(project))
    assert took < 2.5
