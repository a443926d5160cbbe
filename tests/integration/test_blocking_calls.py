"""What blocks in Celery, as storing a result: a slot waits for it, and the event loop does not."""

from __future__ import annotations

import importlib.util

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.witness import NOTING, Notes, outcome

SLOW = 0.4
SOURCE = (
    NOTING
    + f"""
import asyncio, os
from celery import Celery
from celery.backends.redis import RedisBackend
from celery_concurrent import concurrent

class Slow(RedisBackend):
    def store_result(self, task_id, result, state, *args, **kwargs):
        if state == "SUCCESS":
            time.sleep({SLOW})
        return super().store_result(task_id, result, state, *args, **kwargs)

app = Celery(__name__)
if "SLOW" in os.environ:
    # Celery takes what stands in the environment before that of the app.
    app.conf.result_backend = __name__ + ":Slow+" + os.environ.pop("CELERY_RESULT_BACKEND")

@app.task
@concurrent(max_inputs=1)
def on_threads():
    note("started")
    note("ended")

@app.task
@concurrent(max_inputs=1)
async def on_the_loop():
    note("started")
    note("ended")

@app.task
@concurrent(max_inputs=20)
async def nothing():
    pass

@app.task
@concurrent(max_inputs=1)
async def longest_pause(seconds):
    loop = asyncio.get_running_loop()
    before, until, longest = loop.time(), loop.time() + seconds, 0.0
    while before < until:
        await asyncio.sleep(0.01)
        now = loop.time()
        before, longest = now, max(longest, now - before)
    return longest

@app.task
@concurrent(max_inputs=1)
async def kind_of_loop():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
"""
)


@pytest.fixture
def project(celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker) -> Project:
    made = celery_project(SOURCE, broker=redis_broker)
    celery_node(made, env={"SLOW": "1"})
    return made


@pytest.mark.parametrize("name", ["on_threads", "on_the_loop"])
def test_a_slot_comes_back_when_the_result_is_stored(project: Project, name: str) -> None:
    results = [getattr(project.tasks, name).delay() for _ in range(4)]
    for result in results:
        assert outcome(result) is None
    notes = Notes(project)
    starts = sorted(notes.wait(result.id, "started") for result in results)
    ends = sorted(notes.wait(result.id, "ended") for result in results)
    for end, following in zip(ends, starts[1:], strict=False):
        assert following - end >= SLOW * 0.99  # two clocks


@pytest.mark.timing
def test_the_loop_runs_on_while_results_are_stored(project: Project) -> None:
    longest = project.tasks.longest_pause.delay(3 * SLOW)
    results = [project.tasks.nothing.delay() for _ in range(8)]
    for result in results:
        assert outcome(result) is None
    assert outcome(longest) < SLOW / 2


def test_the_loop_is_uvloops_where_that_is_installed(project: Project) -> None:
    expected = "uvloop" if importlib.util.find_spec("uvloop") is not None else "asyncio"
    assert outcome(project.tasks.kind_of_loop.delay()) == expected
