"""Inputs that cannot be interrupted, and inputs that block the event loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery.exceptions import TimeLimitExceeded

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog, outcome, unacked

SOURCE = (
    NOTING
    + """
import asyncio, os
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.concurrent_stuck_timeout = STUCK_TIMEOUT

@app.task
@concurrent(max_inputs=2)
def deaf(seconds):
    note("started")
    try:
        time.sleep(seconds)  # one call into C: nothing reaches the thread meanwhile
    except BaseException:
        pass
    note("returned")
    return "too late"

@app.task
@concurrent(max_inputs=2)
def fine(flag):
    note("started")
    while not os.path.exists(os.path.join(os.path.dirname(__file__), flag)):
        time.sleep(0.02)
    return flag

@app.task
@concurrent(max_inputs=4)
async def blocks():
    note("started")
    time.sleep(1.3)

@app.task
@concurrent(max_inputs=4)
async def answers():
    note("started")
    return "here"
"""
)


def make(celery_project: MakeProject, broker: Broker, stuck_timeout: float = 60.0) -> Project:
    return celery_project(SOURCE.replace("STUCK_TIMEOUT", str(stuck_timeout)), broker=broker)


def test_a_deaf_input_keeps_its_slot_and_its_late_return_is_dropped(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = make(celery_project, redis_broker)
    notes = Notes(project)
    node = celery_node(project)
    hung = [project.tasks.deaf.apply_async((4.0,), time_limit=0.5) for _ in range(2)]
    for result in hung:
        notes.wait(result.id, "started")
        assert isinstance(outcome(result), TimeLimitExceeded)
    waiting = project.tasks.deaf.delay(0.0)
    node.wait_for_log(f"Task {project.name}.deaf[{hung[0].id}] does not end")
    # Both are settled and both of their threads are still there.
    wait_for(lambda: unacked(project) == 1, what="the waiting input alone being unacknowledged")
    assert notes.of(waiting.id) == []
    returned = notes.wait(hung[0].id, "returned")
    assert notes.wait(waiting.id, "started") < returned + 1.0
    assert outcome(waiting) == "too late"
    for result in hung:
        notes.wait(result.id, "returned")
    assert node.stop() == 0  # what they returned would be stored by now
    for result in hung:
        stored = project.app.AsyncResult(result.id)  # the other one remembers what it read
        assert isinstance(outcome(stored), TimeLimitExceeded)
        assert stored.state == "FAILURE"


def test_a_node_with_a_stuck_input_drains_and_exits_to_be_replaced(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = make(celery_project, broker, stuck_timeout=2.0)
    notes = Notes(project)
    node = celery_node(project)
    stuck = project.tasks.deaf.apply_async((60.0,), time_limit=1.0)
    running = project.tasks.fine.delay("flag")
    notes.wait(stuck.id, "started")
    notes.wait(running.id, "started")
    node.wait_for_log("is stuck: draining this node")
    # The node may take a few in the turn in which it stops; it soon takes none.
    later = []

    def publish_until_one_stays() -> bool:
        later.append(project.tasks.answers.delay())
        return backlog(project, project.name) > 0

    wait_for(publish_until_one_stays)
    assert node.running  # until the other input has finished
    Path(project.folder, "flag").touch()
    assert outcome(running) == "flag"
    assert node.wait(5.0) != 0
    assert isinstance(outcome(stuck), TimeLimitExceeded)
    celery_node(project)
    assert {outcome(result) for result in later} == {"here"}
    # What had ended was acknowledged: nothing runs a second time.
    for result in (stuck, running, *later):
        assert notes.of(result.id) == ["started"]
    wait_for(lambda: backlog(project, project.name) == 0)


def test_a_revoked_input_that_is_stuck_has_the_node_replaced_too(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = make(celery_project, redis_broker, stuck_timeout=1.0)
    node = celery_node(project)
    stuck = project.tasks.deaf.delay(60.0)
    Notes(project).wait(stuck.id, "started")
    stuck.revoke(terminate=True)
    assert node.wait(10.0) != 0
    assert stuck.state == "REVOKED"
    assert unacked(project) == backlog(project, project.name) == 0


@pytest.mark.timing
def test_a_stuck_event_loop_is_told_once_with_the_input_and_its_stack(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = make(celery_project, redis_broker)
    node = celery_node(project)
    for occurrence in (1, 2, 3):
        result = project.tasks.blocks.delay()
        started = Notes(project).wait(result.id, "started")
        waiting = project.tasks.answers.delay()
        node.wait_for_log(f"{project.name}.blocks[{result.id}] blocks it")
        assert outcome(waiting) == "here"
        assert Notes(project).times(waiting.id, "started")[0] - started > 1.0
        assert outcome(result) is None
        assert node.log().count("the event loop is stuck") == occurrence
    assert "time.sleep(1.3)" in node.log()
