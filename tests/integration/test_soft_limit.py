"""What an input may do about the exception that ends it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Events, Notes, outcome, watching

SOURCE = (
    NOTING
    + """
import asyncio
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__

def task(function):
    return app.task(concurrent(max_inputs=4)(function))

@task
def catches():
    note("started")
    try:
        while True:
            time.sleep(0.02)
    except SoftTimeLimitExceeded:
        return "what there was by then"

@task
async def catches_async():
    note("started")
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.1)  # an await afterwards is not hit again
        return "what there was by then"

@task
async def gathers():
    try:
        await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
    except SoftTimeLimitExceeded:
        return [task.get_name() for task in asyncio.all_tasks() if "sleep" in repr(task)]

@task
async def within_a_timeout():
    async with asyncio.timeout(60):
        await asyncio.sleep(60)

@task
async def after_a_timeout():
    try:
        async with asyncio.timeout(0.1):
            await asyncio.sleep(60)
    except TimeoutError:
        note("timed out")
    await asyncio.sleep(60)

@task
async def shields():
    return await asyncio.shield(asyncio.sleep(60))

@task
async def swallows():
    note("started")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note("swallowed")
    return "a result nobody asked for"

@task
def swallows_sync():
    note("started")
    try:
        while True:
            time.sleep(0.02)
    except BaseException:
        note("swallowed")
    return "a result nobody asked for"

@task
async def cleans_up():
    note("started")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.1)
        note("cleaned up")
"""
)


@pytest.fixture(
    scope="module",
    params=["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)],
)
def project(
    request: pytest.FixtureRequest,
    module_project: MakeProject,
    module_node: StartNode,
    module_redis_broker: Broker,
) -> Iterator[Project]:
    project = module_project(SOURCE, broker=module_redis_broker)
    node = module_node(project, "-E", pool=request.param)
    yield project
    node.kill()  # a node that does not know an input stores it as REVOKED, too (Celery 5.7)


@pytest.fixture
def notes(project: Project) -> Notes:
    return Notes(project)


def publish(project: Project, task: str, **options: Any) -> Any:
    return getattr(project.tasks, task).apply_async((), **options)


@pytest.mark.parametrize("task", ["catches", "catches_async"])
def test_an_input_that_catches_its_soft_limit_returns_normally(project: Project, task: str) -> None:
    result = publish(project, task, soft_time_limit=0.3)
    assert outcome(result) == "what there was by then"
    assert result.state == "SUCCESS"


def test_a_soft_limit_cancels_what_was_gathered(project: Project) -> None:
    assert outcome(publish(project, "gathers", soft_time_limit=0.3)) == []


@pytest.mark.parametrize("task", ["within_a_timeout", "after_a_timeout", "shields"])
def test_a_soft_limit_comes_as_itself_out_of_what_awaits(project: Project, task: str) -> None:
    if task != "shields" and not hasattr(__import__("asyncio"), "timeout"):
        pytest.skip("asyncio.timeout came with Python 3.11")
    result = publish(project, task, soft_time_limit=0.4)
    assert isinstance(outcome(result), SoftTimeLimitExceeded)
    assert result.state == "FAILURE"


@pytest.mark.parametrize("task", ["swallows", "swallows_sync"])
@pytest.mark.parametrize("by", ["a revoke", "its hard limit"])
def test_an_input_that_swallows_its_end_does_not_change_the_stored_state(
    project: Project, notes: Notes, task: str, by: str
) -> None:
    with watching(project) as events:
        result = publish(project, task, time_limit=0.5 if by == "its hard limit" else 60.0)
        notes.wait(result.id, "started")
        if by == "a revoke":
            result.revoke(terminate=True)
        notes.wait(result.id, "swallowed")
        later = publish(project, "catches", soft_time_limit=0.1)
        assert outcome(later) == "what there was by then"
        error = outcome(result)
        if by == "a revoke":
            assert (result.state, type(error)) == ("REVOKED", TaskRevokedError)
        else:
            assert (result.state, type(error)) == ("FAILURE", TimeLimitExceeded)
        ends_once(events, result.id, "task-revoked" if by == "a revoke" else "task-failed", later)


def test_a_revoked_input_runs_its_finally_blocks(project: Project, notes: Notes) -> None:
    result = publish(project, "cleans_up")
    notes.wait(result.id, "started")
    result.revoke(terminate=True)
    notes.wait(result.id, "cleaned up")
    assert isinstance(outcome(result), TaskRevokedError)


def test_a_revoke_without_terminate_leaves_a_running_input_alone(
    project: Project, notes: Notes
) -> None:
    result = publish(project, "catches_async", soft_time_limit=1.0)
    notes.wait(result.id, "started")
    result.revoke()
    assert outcome(result) == "what there was by then"


def test_a_second_revoke_changes_nothing(project: Project, notes: Notes) -> None:
    with watching(project) as events:
        result = publish(project, "cleans_up")
        notes.wait(result.id, "started")
        result.revoke(terminate=True)
        result.revoke(terminate=True)
        notes.wait(result.id, "cleaned up")
        later = publish(project, "catches", soft_time_limit=0.1)
        assert outcome(later) == "what there was by then"
        assert notes.of(result.id) == ["started", "cleaned up"]
        ends_once(events, result.id, "task-revoked", later)


def test_an_inputs_last_event_is_sent_at_once(project: Project) -> None:
    """An idle node polls for up to a second, during which nothing may be left to send."""
    lags = []
    with watching(project) as events:
        for _ in range(5):
            result = publish(project, "catches", soft_time_limit=0.1)
            outcome(result)
            stored = time.monotonic()
            events.wait(result.id, "task-succeeded")
            lags.append(time.monotonic() - stored)
    assert statistics.median(lags) < 0.3


def ends_once(events: Events, id: str, type: str, later: Any) -> None:
    """One event tells of its end: the events of a later input are there, and no second one."""
    events.wait(later.id, "task-succeeded")
    wait_for(lambda: type in events.of(id))
    assert events.of(id) == ["task-received", "task-started", type]
