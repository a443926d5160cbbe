"""A service's one instance: its enter, its inputs, its exit."""

from __future__ import annotations

import signal
import time

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog, outcome, unacked

#: What happens besides inputs is noted under this id.
HOOKS = None
SOURCE = (
    NOTING
    + """
import asyncio, os, threading
from celery import Celery
from celery_concurrent import concurrent, enter, exit, method, service

app = Celery(__name__)
app.conf.task_default_queue = __name__
lock = threading.Lock()

@service(app)
@concurrent(max_inputs=3)
class Model:
    running = most = 0

    def __init__(self):
        note("made")

    @enter
    ENTER

    @exit
    async def close(self):
        await asyncio.sleep(0.05)
        note(f"exit of {id(self)}")

    def count(self, change):
        with lock:
            self.running += change
            self.most = max(self.most, self.running)

    @method
    def sync(self, seconds):
        note("started")
        self.count(1)
        time.sleep(seconds)
        self.count(-1)
        return id(self), self.weights

    @method
    async def concurrent(self, seconds):
        note("started")
        self.count(1)
        await asyncio.sleep(seconds)
        self.count(-1)
        return id(self), self.weights

    @method
    def peak(self):
        return self.most

@service(app, queue="elsewhere")
@concurrent(max_inputs=3)
class Elsewhere:
    @enter
    def load(self):
        note("a service of another queue")

    @method
    def ping(self):
        return "pong"
"""
)
SYNC = """def load(self):
        time.sleep(0.5)
        self.weights = "loaded"
        note("entered")"""
ASYNC = SYNC.replace("def load", "async def load").replace("time.sleep", "await asyncio.sleep")
FAILING = """def load(self):
        raise RuntimeError("no such weights")"""
LONG = """def load(self):
        note("entering")
        time.sleep(30)"""
BOTH_POOLS = pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)


@BOTH_POOLS
@pytest.mark.parametrize("enter", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_node_has_one_instance_from_enter_to_exit(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    enter: str,
) -> None:
    project = celery_project(SOURCE.replace("ENTER", enter), broker=redis_broker)
    model, notes = project.tasks.Model, Notes(project)
    results = [model.sync.delay(0.2) for _ in range(5)]
    results += [model.concurrent.delay(0.2) for _ in range(5)]
    node = celery_node(project, pool=pool)
    seen = {outcome(result)[0] for result in results}
    assert len(seen) == 1
    assert {outcome(result)[1] for result in results} == {"loaded"}
    assert outcome(model.peak.delay()) == 3  # of sync and async inputs together
    last = model.sync.delay(0.5)
    notes.wait(last.id, "started")
    assert node.stop() == 0
    assert outcome(last)[1] == "loaded"
    told = notes.all()
    assert [what for id, what, _ in told if id is HOOKS] == [
        *("made", "entered", f"exit of {seen.pop()}")
    ]
    assert [what for _, what, _ in told][:2] == ["made", "entered"]  # before the first input
    assert told[-1][1].startswith("exit")  # after the last one


@BOTH_POOLS
@pytest.mark.parametrize(
    "enter", [FAILING, FAILING.replace("def", "async def")], ids=["sync", "async"]
)
def test_a_service_that_cannot_enter_ends_its_node_and_takes_no_input(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    enter: str,
) -> None:
    project = celery_project(SOURCE.replace("ENTER", enter), broker=redis_broker)
    for _ in range(3):
        project.tasks.Model.sync.delay(0.0)
    node = celery_node(project, pool=pool, ready=False)
    assert node.wait(15.0) == 1
    assert "RuntimeError: no such weights" in node.log()
    assert (backlog(project, project.name), unacked(project)) == (3, 0)


@BOTH_POOLS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_during_a_long_enter_ends_the_node_promptly(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    number: signal.Signals,
) -> None:
    project = celery_project(SOURCE.replace("ENTER", LONG), broker=redis_broker)
    project.tasks.Model.sync.delay(0.0)
    node = celery_node(project, pool=pool, ready=False)
    notes = Notes(project)
    wait_for(lambda: any(what == "entering" for _, what, _ in notes.all()), 15.0)
    node.signal(number)
    asked = time.monotonic()
    node.wait(5.0)
    assert time.monotonic() - asked < 3.0
    assert (backlog(project, project.name), unacked(project)) == (1, 0)


def test_a_service_works_eagerly_without_a_node(
    celery_project: MakeProject, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE.replace("ENTER", ASYNC), broker=redis_broker)
    project.app.conf.task_always_eager = True
    model = project.tasks.Model
    made, weights = model.sync.delay(0.0).get()
    assert weights == "loaded"
    assert model.concurrent.delay(0.0).get() == (made, "loaded")
    assert model.concurrent.apply((0.0,)).get() == (made, "loaded")
    assert [what for _, what, _ in Notes(project).all()].count("entered") == 1
