"""Celery's own signals of its eventlet pool are sent by ours."""

from __future__ import annotations

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker
from tests.services.witness import outcome

SOURCE = """
from celery import Celery, signals
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
heard = []

@signals.eventlet_pool_started.connect(weak=False)
def started(**_):
    heard.append("started")

@signals.eventlet_pool_apply.connect(weak=False)
def applied(**_):
    heard.append("apply")

@app.task
@concurrent(max_inputs=2)
def told():
    return heard
"""


@pytest.mark.eventlet
def test_the_pools_start_and_each_input_are_told(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=redis_broker)
    celery_node(project, pool="eventlet")
    assert outcome(project.tasks.told.delay()) == ["started", "apply"]
    assert outcome(project.tasks.told.delay()) == ["started", "apply", "apply"]
