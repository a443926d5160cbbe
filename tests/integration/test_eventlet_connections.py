"""Under eventlet too, inputs are acknowledged and their results stored from a few places."""

from __future__ import annotations

import pytest
import redis

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.witness import outcome

SOURCE = """
import asyncio, time
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)

@app.task
@concurrent(max_inputs=200)
def green():
    time.sleep(0.2)

@app.task
@concurrent(max_inputs=200)
async def coroutine():
    await asyncio.sleep(0.2)
"""
#: To consume, to be woken, for control and events, for results and leases: 16 at present.
MOST = 24


def connections(project: Project) -> int:
    with redis.Redis.from_url(project.broker.url) as client:
        return len(client.client_list())


@pytest.mark.eventlet
@pytest.mark.parametrize("name", ["green", "coroutine"])
def test_many_inputs_need_few_connections(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, name: str
) -> None:
    project = celery_project(SOURCE, broker=redis_broker)
    results = [getattr(project.tasks, name).delay() for _ in range(400)]
    before = connections(project)
    celery_node(project, pool="eventlet")
    for result in results:
        assert outcome(result, 30.0) is None
    assert connections(project) - before <= MOST  # the pools keep what they have opened
