"""A node holds as many inputs as it has slots; what is beyond waits in the broker."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

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
from celery_concurrent import (
    concurrent, get_local_input_concurrency, set_local_input_concurrency
)

app = Celery(__name__)
app.conf.task_default_queue_type = "{queue_type}"
app.conf.concurrent_eta_limit = 5
app.conf.worker_prefetch_multiplier = 2
FLAG = __file__ + ".flag"

async def hold_async():
    note("started")
    while not os.path.exists(FLAG):
        await asyncio.sleep(0.02)

def hold_sync():
    note("started")
    while not os.path.exists(FLAG):
        time.sleep(0.02)

def task(name, function, **options):
    copy = type(function)(function.__code__, globals(), name)
    return app.task(concurrent(max_inputs=4)(copy), name=f"{{__name__}}.{{name}}", **options)

on_loop = task("on_loop", hold_async)
on_threads = task("on_threads", hold_sync)
early_on_loop = task("early_on_loop", hold_async, acks_late=False)
early_on_threads = task("early_on_threads", hold_sync, acks_late=False)

@app.task
@concurrent(max_inputs=4)
async def resize(limit, hold=False):
    set_local_input_concurrency(limit)
    if hold:
        await hold_async()
    return get_local_input_concurrency()

app.conf.task_routes = {{
    f"{{__name__}}.{{name}}": name
    for name in ("on_loop", "on_threads", "early_on_loop", "early_on_threads", "resize")
}}
"""
)
BROKERS = [
    pytest.param(("redis", "classic"), marks=pytest.mark.redis, id="redis"),
    pytest.param(("rabbitmq", "classic"), marks=pytest.mark.rabbitmq, id="rabbitmq"),
    pytest.param(("rabbitmq", "quorum"), marks=pytest.mark.rabbitmq, id="quorum"),
]


@pytest.fixture(params=BROKERS)
def chosen(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def queue_type(chosen: tuple[str, str]) -> str:
    return chosen[1]


@pytest.fixture
def project(
    chosen: tuple[str, str], request: pytest.FixtureRequest, celery_project: MakeProject
) -> Iterator[Project]:
    broker: Broker = request.getfixturevalue(f"{chosen[0]}_broker")
    made = celery_project(SOURCE.format(queue_type=chosen[1]), broker=broker)
    yield made
    Path(made.tasks.FLAG).touch()


def publish(project: Project, name: str, count: int, **options: Any) -> None:
    for _ in range(count):
        getattr(project.tasks, name).apply_async(**options)


def started(project: Project) -> int:
    return len(Notes(project).all())


def wait_until(project: Project, *, running: int, **kept: int) -> None:
    """Until so many run, and the queues keep so many; then more must not have begun."""
    wait_for(lambda: started(project) >= running, what="running inputs")
    for queue, count in kept.items():
        wait_for(
            lambda queue=queue, count=count: backlog(project, queue) == count,  # type: ignore[misc]
            what=lambda queue=queue: f"{queue}, which keeps {backlog(project, queue)},",  # type: ignore[misc]
        )
    assert started(project) == running


def is_revoked(project: Project, id: str) -> bool:
    return bool(project.app.AsyncResult(id).state == "REVOKED")


def release(project: Project, count: int) -> None:
    Path(project.tasks.FLAG).touch()
    wait_for(lambda: started(project) == count, 20, what="all inputs")


@pytest.mark.parametrize("name", ["on_loop", "on_threads"])
def test_a_full_node_leaves_the_rest_in_the_broker(
    project: Project, celery_node: StartNode, name: str
) -> None:
    celery_node(project, "-Q", name)
    publish(project, name, 12)
    wait_until(project, running=4, **{name: 8})
    release(project, 12)


@pytest.mark.parametrize("name", ["early_on_loop", "early_on_threads"])
def test_inputs_acknowledged_early_count_as_long_as_they_run(
    project: Project, celery_node: StartNode, queue_type: str, name: str
) -> None:
    celery_node(project, "-Q", name)
    publish(project, name, 12)
    # RabbitMQ knows no prefetch of none, so one is reserved; and a quorum queue's cannot be
    # lowered, so there as many again are.
    kept = {"quorum": 4, "classic": 7 if project.broker.kind == "rabbitmq" else 8}[queue_type]
    wait_until(project, running=4, **{name: kept})
    release(project, 12)


def test_eta_inputs_are_bounded_and_block_nothing(project: Project, celery_node: StartNode) -> None:
    celery_node(project, "-Q", "on_loop")
    publish(project, "on_loop", 5, countdown=60)
    wait_until(project, running=0, on_loop=0)
    publish(project, "on_loop", 6)
    wait_until(project, running=4, on_loop=2)


def test_eta_inputs_beyond_the_bound_take_from_the_slots(
    project: Project, celery_node: StartNode
) -> None:
    celery_node(project, "-Q", "on_loop")
    publish(project, "on_loop", 20, countdown=60)
    wait_until(project, running=0, on_loop=11)


def test_a_node_is_capped_and_grows_and_shrinks(
    project: Project, celery_node: StartNode, queue_type: str
) -> None:
    node = celery_node(project, "-Q", "on_loop", "-c", "2")
    publish(project, "on_loop", 12)
    wait_until(project, running=2, on_loop=10)
    told = {"destination": [node.name], "reply": True, "timeout": 5}
    assert "ok" in str(project.app.control.pool_grow(1, **told))
    wait_until(project, running=3, on_loop=9)
    assert "ok" in str(project.app.control.pool_grow(9, **told))
    wait_until(project, running=4, on_loop=8)
    assert "cannot grow by 1" in str(project.app.control.pool_grow(1, **told))
    assert "ok" in str(project.app.control.pool_shrink(3, **told))
    *ending, last = [id for id, *_ in Notes(project).all()]
    project.app.control.revoke(ending, terminate=True)
    for id in ending:
        wait_for(partial(is_revoked, project, id))
    # A quorum queue's first consumer may have been sent two for good.
    is_lowered = queue_type != "quorum"
    wait_until(project, running=4, **({"on_loop": 8} if is_lowered else {}))
    project.app.control.revoke(last, terminate=True)
    wait_until(project, running=5, **({"on_loop": 7} if is_lowered else {}))
    release(project, 12)


def test_a_function_sets_its_own_limit(
    project: Project, celery_node: StartNode, queue_type: str
) -> None:
    celery_node(project, "-Q", "resize")
    for limit in (1, 4, 2):
        assert project.tasks.resize.delay(limit).get(timeout=10) == limit
    for _ in range(5):
        project.tasks.resize.delay(2, hold=True)
    wait_until(project, running=2, resize=1 if queue_type == "quorum" else 3)
    Path(project.tasks.FLAG).touch()
    with pytest.raises(Exception, match=r"concurrency=5 must lie in 1\.\.max_inputs=4"):
        project.tasks.resize.delay(5).get(timeout=10)
