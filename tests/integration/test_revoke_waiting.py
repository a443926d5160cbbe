"""Inputs that are revoked, or expire, before they have started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, outcome, unacked

SOURCE = (
    NOTING
    + """
import asyncio, os
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
here = os.path.dirname(__file__)

@app.task
@concurrent(max_inputs=1)
async def narrow(flag):
    note("started")
    while not os.path.exists(os.path.join(here, flag)):
        await asyncio.sleep(0.02)
    return flag

@app.task
@concurrent(max_inputs=8)
def wide():
    # On the same queue, so that the node has slots to fetch more of the narrow one's inputs.
    note("started")
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
    node = module_node(project, pool=request.param)
    yield project
    node.kill()  # a node that does not know an input stores it as REVOKED, too (Celery 5.7)


class Blocker:
    """Holds the one slot of the narrow function until it is released."""

    def __init__(self, project: Project, notes: Notes) -> None:
        self._flag = Path(project.folder, f"flag-{time.monotonic_ns()}")
        self._result = project.tasks.narrow.delay(self._flag.name)
        notes.wait(self._result.id, "started")

    def release(self) -> None:
        self._flag.touch()
        assert outcome(self._result) == self._flag.name


def waits_in_the_node(project: Project, **options: Any) -> AsyncResult:
    """An input that the node has fetched and that waits there, for a slot or its time."""
    before = unacked(project)
    Path(project.folder, "always").touch()
    result = project.tasks.narrow.apply_async(("always",), **options)
    wait_for(lambda: unacked(project) == before + 1, what="the node taking the input")
    return result


def is_revoked(project: Project, result: AsyncResult, notes: Notes) -> None:
    """It is, it never ran, and the node has nothing left of it."""
    assert isinstance(outcome(result), TaskRevokedError)
    assert result.state == "REVOKED"
    wait_for(lambda: unacked(project) == 0, what="the acknowledgement")
    assert outcome(project.tasks.wide.delay()) is None
    assert notes.of(result.id) == []


@pytest.mark.parametrize("terminate", [False, True])
def test_an_input_revoked_while_it_waits_for_a_slot_never_runs(
    project: Project, terminate: bool
) -> None:
    notes = Notes(project)
    blocker = Blocker(project, notes)
    result = waits_in_the_node(project)
    result.revoke(terminate=terminate)
    behind = waits_in_the_node(project)
    blocker.release()
    is_revoked(project, result, notes)
    assert outcome(behind) == "always"


def test_an_input_that_expires_while_it_waits_for_a_slot_never_runs(project: Project) -> None:
    notes = Notes(project)
    blocker = Blocker(project, notes)
    result = waits_in_the_node(project, expires=0.5)
    fresh = waits_in_the_node(project, expires=60)
    wait_until(time.time() + 0.6)
    blocker.release()
    is_revoked(project, result, notes)
    assert outcome(fresh) == "always"


@pytest.mark.parametrize("terminate", [False, True])
def test_an_input_revoked_before_its_eta_never_runs(project: Project, terminate: bool) -> None:
    notes = Notes(project)
    due = datetime.now(timezone.utc) + timedelta(seconds=1.0)
    result = waits_in_the_node(project, eta=due)
    result.revoke(terminate=terminate)
    is_revoked(project, result, notes)
    assert time.time() < due.timestamp() + 1.5


def test_an_eta_input_that_was_not_revoked_runs_when_it_is_due(project: Project) -> None:
    notes = Notes(project)
    due = time.time() + 1.0
    result = waits_in_the_node(project, countdown=1.0)
    assert due - 0.1 <= notes.wait(result.id, "started") < due + 1.5
    assert outcome(result) == "always"


def test_an_input_revoked_in_the_queue_never_runs(project: Project) -> None:
    """The node hears of the revoke while the message is still on its way."""
    notes = Notes(project)
    id = f"revoked-early-{time.monotonic_ns()}"
    project.app.control.revoke(id)
    # Another input's revoke, told later on the same way, is known by then.
    blocker = Blocker(project, notes)
    told = waits_in_the_node(project)
    told.revoke(terminate=True)
    blocker.release()
    is_revoked(project, told, notes)
    result = project.tasks.wide.apply_async((), task_id=id)
    is_revoked(project, result, notes)


def wait_until(at: float) -> None:
    wait_for(lambda: time.time() >= at)
