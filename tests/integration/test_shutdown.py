"""A warm stop: what runs finishes and is acknowledged as it ends, the rest goes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import psutil
import pytest
from celery.result import AsyncResult

from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog, outcome, unacked, watching

SOURCE = (
    NOTING
    + """
import asyncio
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__

@app.task
@concurrent(max_inputs=4)
def sync(seconds):
    note("started")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.02)
    note("ended")
    return seconds

@app.task
@concurrent(max_inputs=4)
async def concurrently(seconds):
    note("started")
    await asyncio.sleep(seconds)
    note("ended")
    return seconds

@app.task
@concurrent(max_inputs=1)
async def narrow(seconds):
    note("started")
    await asyncio.sleep(seconds)
    return seconds
"""
)
BOTH_POOLS = pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)

#: Each broker with threads and asyncio; eventlet, whose stop is the same for both, with one.
NODES = [
    pytest.param("redis", "concurrent", marks=pytest.mark.redis),
    pytest.param("rabbitmq", "concurrent", marks=pytest.mark.rabbitmq),
    pytest.param("redis", "eventlet", marks=[pytest.mark.redis, pytest.mark.eventlet]),
]
EACH_NODE = pytest.mark.parametrize(("broker", "pool"), NODES, indirect=["broker"])


@pytest.fixture
def project(celery_project: MakeProject, broker: Broker) -> Project:
    return celery_project(SOURCE, broker=broker)


@pytest.fixture
def redis_project(celery_project: MakeProject, redis_broker: Broker) -> Project:
    return celery_project(SOURCE, broker=redis_broker)


@BOTH_POOLS
@pytest.mark.timing
def test_a_warm_stop_acknowledges_each_input_as_it_ends(
    redis_project: Project, celery_node: StartNode, pool: str
) -> None:
    project, notes = redis_project, Notes(redis_project)
    with watching(project) as events:
        node = celery_node(project, "-E", pool=pool)
        lengths = [0.1, 0.5, 1.0, 2.0, 5.0]
        results = {length: project.tasks.concurrently.delay(length) for length in lengths}
        results |= {length + 0.25: project.tasks.sync.delay(length + 0.25) for length in lengths}
        for result in results.values():
            notes.wait(result.id, "started")
        node.signal(signal.SIGTERM)
        left, stopping = len(results), time.time()
        for length in sorted(results):
            ended = notes.wait(results[length].id, "ended")
            left -= 1
            wait_for(partial(unacked_are, project, left), what=f"the ack of {length} s")
            assert time.time() < max(ended, stopping) + 0.5
            kept = unacked(project)
            assert kept >= sum(not notes.times(result.id, "ended") for result in results.values())
        node.wait(5.0)
        assert time.time() < ended + 1.0
        assert node.returncode == 0
        for length, result in results.items():
            assert outcome(result) == length
            assert events.of(result.id)[-1:] == ["task-succeeded"]
    assert backlog(project, project.name) == 0
    assert all(len(notes.times(result.id, "started")) == 1 for result in results.values())


def unacked_are(project: Project, most: int) -> bool:
    return unacked(project) <= most


@EACH_NODE
def test_a_node_that_is_killed_in_its_warm_stop_had_acknowledged_what_had_ended(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    notes = Notes(project)
    node = celery_node(project, pool=pool)
    short = [task.delay(0.5) for task in (project.tasks.sync, project.tasks.concurrently)]
    long = [task.delay(60) for task in (project.tasks.sync, project.tasks.concurrently)]
    for result in (*short, *long):
        notes.wait(result.id, "started")
    node.signal(signal.SIGTERM)
    for result in short:
        assert outcome(result) == 0.5
    settle_down(node)
    node.kill()
    if project.broker.kind == "redis":
        assert unacked(project) == 2
    else:
        wait_for(lambda: backlog(project, project.name) == 2, what="the messages of the long ones")


def settle_down(node: Node) -> None:
    """Half a second: the time an ack may take that nothing outside of RabbitMQ tells of."""
    until = time.monotonic() + 0.5
    wait_for(lambda: time.monotonic() > until and node.running)


def test_a_warm_stop_gives_back_what_has_not_started(
    project: Project, celery_node: StartNode
) -> None:
    notes = Notes(project)
    node = celery_node(project)
    running = project.tasks.narrow.delay(1.5)
    notes.wait(running.id, "started")
    in_line = [project.tasks.narrow.delay(0.0) for _ in range(3)]
    planned = [project.tasks.sync.apply_async((0.0,), countdown=4.0) for _ in range(2)]
    for result in (*in_line, *planned):
        node.wait_for_log(f"[{result.id}] received")
    assert node.stop() == 0
    assert outcome(running) == 1.5
    wait_for(lambda: backlog(project, project.name) == 5, what="what waited being back")
    celery_node(project)
    assert [outcome(result) for result in (*in_line, *planned)] == [0.0] * 5
    for result in (running, *in_line, *planned):
        assert len(notes.times(result.id, "started")) == 1


@BOTH_POOLS
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)], ids=["SIGTERM", "SIGINT"]
)
def test_an_idle_node_leaves_promptly_and_leaves_nothing_behind(
    redis_project: Project, celery_node: StartNode, pool: str, number: signal.Signals, code: int
) -> None:
    """With the exit codes of Celery's own workers."""
    node = celery_node(redis_project, pool=pool)
    assert outcome(redis_project.tasks.sync.delay(0.0)) == 0.0
    assert outcome(redis_project.tasks.concurrently.delay(0.0)) == 0.0
    node.signal(number)
    # Celery looks up once a second; without a hub it and its remote control every two.
    assert node.wait(4.0 if pool == "concurrent" else 8.0) == code
    assert not group_of(node)
    assert "Traceback" not in node.log()


def group_of(node: Node) -> list[psutil.Process]:
    """What still runs of the node's process group, zombies left out."""
    return [
        process
        for process in psutil.process_iter()
        if is_of_group(process, node.pid) and process.status() != psutil.STATUS_ZOMBIE
    ]


def is_of_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


def cold(node: Node) -> None:
    node.signal(signal.SIGQUIT)


def interrupted_twice(node: Node) -> None:
    """Ctrl-C and Ctrl-C again."""
    node.signal(signal.SIGINT)
    node.wait_for_log("Warm shutdown")
    node.signal(signal.SIGINT)


@EACH_NODE
@pytest.mark.parametrize("stop", [cold, interrupted_twice])
def test_a_cold_stop_gives_unfinished_inputs_back(
    project: Project, celery_node: StartNode, pool: str, stop: Callable[[Node], None]
) -> None:
    notes = Notes(project)
    node = celery_node(project, pool=pool)
    tasks = (project.tasks.sync, project.tasks.concurrently)
    finished = [task.delay(0.0) for task in tasks]
    assert [outcome(result) for result in finished] == [0.0, 0.0]
    unfinished = [task.delay(8.0) for task in tasks]
    for result in unfinished:
        notes.wait(result.id, "started")
    asked = time.monotonic()
    stop(node)
    node.wait(10.0)
    assert time.monotonic() - asked < 5.0
    run_again(project, notes, celery_node, unfinished, once=finished)


@EACH_NODE
def test_a_soft_shutdown_lets_inputs_finish_for_a_while_and_gives_the_others_back(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    source = project.folder / f"{project.name}.py"
    source.write_text(source.read_text() + "\napp.conf.worker_soft_shutdown_timeout = 2.0\n")
    notes = Notes(project)
    node = celery_node(project, pool=pool)
    tasks = (project.tasks.sync, project.tasks.concurrently)
    finished = [task.delay(0.8) for task in tasks]
    unfinished = [task.delay(8.0) for task in tasks]
    for result in (*finished, *unfinished):
        notes.wait(result.id, "started")
    asked = time.monotonic()
    node.signal(signal.SIGQUIT)
    node.wait(10.0)
    assert 1.9 < time.monotonic() - asked < 6.0
    assert [outcome(result) for result in finished] == [0.8, 0.8]
    run_again(project, notes, celery_node, unfinished, once=finished)


def run_again(
    project: Project,
    notes: Notes,
    celery_node: StartNode,
    results: list[AsyncResult],
    *,
    once: list[AsyncResult],
) -> None:
    """These inputs are back in the queue and start on the next node, the others do not."""
    wait_for(partial(backlog_is, project, len(results)), what="what did not finish")
    celery_node(project)
    for result in results:
        wait_for(partial(started_twice, notes, result.id))
    for result in once:
        assert len(notes.times(result.id, "started")) == 1


def backlog_is(project: Project, number: int) -> bool:
    return backlog(project, project.name) == number


def started_twice(notes: Notes, id: str) -> bool:
    return len(notes.times(id, "started")) == 2
