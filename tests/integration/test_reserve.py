"""``concurrent_reserve``: inputs that a node fetches ahead, start in order, and give back unrun."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog

SOURCE = (
    NOTING
    + """
import asyncio, os
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.task_default_queue_type = "{queue_type}"
app.conf.concurrent_reserve = 3

@app.task
@concurrent(max_inputs=2)
async def held(number):
    note("started")
    while not os.path.exists(__file__ + f".{{number}}"):
        await asyncio.sleep(0.01)
    note("ended")
    return number
"""
)
BROKERS = [
    pytest.param(("redis", "classic", "concurrent"), marks=pytest.mark.redis, id="redis"),
    pytest.param(
        ("redis", "classic", "eventlet"),
        marks=[pytest.mark.redis, pytest.mark.eventlet],
        id="redis-eventlet",
    ),
    pytest.param(("rabbitmq", "classic", "concurrent"), marks=pytest.mark.rabbitmq, id="rabbitmq"),
    pytest.param(("rabbitmq", "quorum", "concurrent"), marks=pytest.mark.rabbitmq, id="quorum"),
]


@pytest.fixture(params=BROKERS)
def chosen(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    found: tuple[str, str, str] = request.param
    return found


@pytest.fixture
def pool(chosen: tuple[str, str, str]) -> str:
    return chosen[2]


@pytest.fixture
def project(
    chosen: tuple[str, str, str], request: pytest.FixtureRequest, celery_project: MakeProject
) -> Iterator[Project]:
    broker: Broker = request.getfixturevalue(f"{chosen[0]}_broker")
    made = celery_project(SOURCE.format(queue_type=chosen[1]), broker=broker)
    yield made
    release(made, *range(12))


def release(project: Project, *numbers: int) -> None:
    for number in numbers:
        Path(f"{project.tasks.__file__}.{number}").touch()


def started(project: Project, ids: list[str]) -> list[int]:
    """The numbers of the inputs that have started, in that order."""
    return [ids.index(id) for id, what, _ in Notes(project).all() if what == "started"]


def fill(project: Project) -> list[str]:
    """Publish twelve inputs, of which a node runs two and reserves three; their ids."""
    ids = [project.tasks.held.delay(number).id for number in range(12)]
    queue = project.app.conf.task_default_queue
    wait_for(
        lambda: (len(started(project, ids)), backlog(project, queue)) == (2, 7),
        what=lambda: f"running inputs {started(project, ids)} of {backlog(project, queue)} more",
    )
    return ids


def test_what_is_reserved_starts_in_order_and_is_replaced(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    node = celery_node(project, "-c", "2", pool=pool)
    ids = fill(project)
    reply = project.app.control.inspect([node.name], timeout=5).reserved()
    assert len((reply or {})[node.name]) == 3
    release(project, 0)
    queue = project.app.conf.task_default_queue
    wait_for(lambda: (started(project, ids), backlog(project, queue)) == ([0, 1, 2], 6))
    release(project, *range(1, 12))
    wait_for(lambda: len(started(project, ids)) == 12)
    assert started(project, ids) == list(range(12))


def test_what_is_reserved_is_revoked_without_running(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    celery_node(project, pool=pool)
    ids = fill(project)
    project.app.control.revoke(ids[2], reply=True, timeout=5)
    release(project, 0)
    wait_for(lambda: len(started(project, ids)) == 3)
    assert started(project, ids) == [0, 1, 3]
    assert project.app.AsyncResult(ids[2]).state == "REVOKED"


def test_a_warm_stop_gives_back_what_is_reserved(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    node = celery_node(project, pool=pool)
    ids = fill(project)
    node.signal(signal.SIGTERM)
    node.wait_for_log("Warm shutdown")
    release(project, 0, 1)
    node.wait()
    assert started(project, ids) == [0, 1]
    assert backlog(project, project.app.conf.task_default_queue) == 10
    celery_node(project, pool=pool, name="next")
    release(project, *range(2, 12))
    wait_for(lambda: len(started(project, ids)) == 12)
    assert sorted(started(project, ids)) == list(range(12))
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=10) == number
