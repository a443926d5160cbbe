"""Inputs of real nodes that meet in one call."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, outcome

SOURCE = (
    NOTING
    + """
import asyncio, os, time
from celery import Celery
from celery.utils.log import get_task_logger
from celery_concurrent import (
    batched, concurrent, current_input_id, current_function_call_id, enter, method, service,
)

app = Celery(__name__)
logger = get_task_logger(__name__)

@app.task(queue="work", name="squares")
@concurrent(max_inputs=20)
@batched(max_batch_size=8)
def squares(numbers):
    logger.warning("a call of %d", len(numbers))
    time.sleep(0.1)
    return [(number**2, len(numbers), current_input_id()) for number in numbers]

@batched(max_batch_size=8)
def until(flags):
    note(f"call {len(flags)}")
    while not all(map(os.path.exists, flags)):
        time.sleep(0.01)
    return flags

@app.task(queue="work", name="holds")
@concurrent(max_inputs=20)
async def holds(flag):
    note("started")
    return await until(flag), current_input_id()

@app.task(queue="work", name="fragile", autoretry_for=(ConnectionError,), default_retry_delay=0)
@concurrent(max_inputs=20)
@batched(max_batch_size=8)
async def fragile(texts):
    await asyncio.sleep(0.05)
    if "down" in texts and not os.path.exists(__file__ + ".tried"):
        open(__file__ + ".tried", "w").close()
        raise ConnectionError("the server is down")
    return [ValueError(f"cannot read {text!r}") if text == "bad" else text for text in texts]

@batched(max_batch_size=8)
def breaks(numbers):
    raise LookupError("nothing is there")

@app.task(queue="work", name="recovers")
@concurrent(max_inputs=20)
async def recovers(number):
    try:
        return await breaks(number)
    except LookupError:
        # Each at its own time, and longer than others take to settle.
        await asyncio.sleep(0.05 * number)
        note("recovered")
        if number % 2:
            raise
        return number

@service(app, queue="models", name="model")
@concurrent(max_inputs=20)
class Model:
    @enter
    def load(self):
        self.weight = 3

    @method
    @batched(max_batch_size=20)
    def scale(self, numbers):
        time.sleep(0.05)
        return [(self.weight * number, len(numbers)) for number in numbers]
"""
)


@pytest.fixture
def project(celery_project: MakeProject, broker: Broker) -> Project:
    return celery_project(SOURCE, broker=broker)


@pytest.fixture(params=["concurrent", "eventlet"])
def pool(request: pytest.FixtureRequest) -> str:
    if request.param == "eventlet":
        pytest.importorskip("eventlet")
    return str(request.param)


def test_inputs_of_a_node_meet_in_calls_and_each_has_its_own_result(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    results = [project.tasks.squares.delay(number) for number in range(40)]
    node = celery_node(project, "-Q", "work", pool=pool)
    told = [result.get(timeout=30) for result in results]
    assert [square for square, _, _ in told] == [number**2 for number in range(40)]
    sizes = {size for _, size, _ in told}
    assert max(sizes) == 8
    assert node.log().count("a call of") <= 10
    # A call belongs to no input.
    assert {input_id for _, _, input_id in told} == {None}
    (line, *_) = [line for line in node.log().splitlines() if "a call of" in line]
    assert "squares" not in line.partition("a call of")[0]


def test_a_services_inputs_meet_in_its_method(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    results = [project.tasks.Model.scale.delay(number) for number in range(40)]
    celery_node(project, "-Q", "models", pool=pool)
    told = [result.get(timeout=30) for result in results]
    assert [scaled for scaled, _ in told] == [3 * number for number in range(40)]
    assert max(size for _, size in told) > 1


def test_one_bad_element_fails_alone_and_an_error_of_the_call_is_retried_by_each(
    project: Project, celery_node: StartNode
) -> None:
    texts = ["a", "bad", "b", "down", "c"]
    results = [project.tasks.fragile.delay(text) for text in texts]
    celery_node(project, "-Q", "work")
    told = [outcome(result) for result in results]
    assert [told[0], *told[2:]] == ["a", "b", "down", "c"]
    assert isinstance(told[1], ValueError)
    assert str(told[1]) == "cannot read 'bad'"


def test_inputs_of_a_call_that_failed_each_go_on_in_their_own_time(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    """Celery clears the frames of an error that it has stored: they must be that input's own."""
    results = [project.tasks.recovers.delay(number) for number in range(8)]
    celery_node(project, "-Q", "work", pool=pool)
    told = [outcome(result) for result in results]
    assert told[::2] == [0, 2, 4, 6]
    assert {(type(error), str(error)) for error in told[1::2]} == {
        (LookupError, "nothing is there")
    }
    assert _all(Notes(project)).count("recovered") == 8


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("revoked", TaskRevokedError),
        ("hard limit", TimeLimitExceeded),
        ("soft limit", SoftTimeLimitExceeded),
    ],
)
def test_an_input_that_is_ended_leaves_its_batch_and_the_others_go_on(
    project: Project, celery_node: StartNode, tmp_path: Path, how: str, kind: type[Exception]
) -> None:
    holds, notes = project.tasks.holds, Notes(project)
    node = celery_node(project, "-Q", "work")
    first, second = tmp_path / "first", tmp_path / "second"
    ahead = holds.delay(str(first))
    wait_for(lambda: "call 1" in _all(notes), what="the first call")
    limits: dict[str, Any] = {
        "hard limit": {"time_limit": 0.5},
        "soft limit": {"soft_time_limit": 0.5},
    }
    ended = holds.apply_async((str(second),), **limits.get(how, {}))
    siblings = [holds.delay(str(second)) for _ in range(3)]
    for result in (ended, *siblings):
        notes.wait(result.id, "started")
    if how == "revoked":
        ended.revoke(terminate=True)
    assert isinstance(outcome(ended), kind)
    second.touch()
    first.touch()
    assert outcome(ahead) == [str(first), ahead.id]
    for result in siblings:
        assert outcome(result) == [str(second), result.id]
    assert _all(notes).count("call 3") == 1
    node.stop()


def test_a_warm_stop_waits_for_the_call_and_a_hung_one_does_not_keep_the_process(
    project: Project, celery_node: StartNode, tmp_path: Path
) -> None:
    holds, notes = project.tasks.holds, Notes(project)
    node = celery_node(project, "-Q", "work")
    flag = tmp_path / "flag"
    waited = holds.delay(str(flag))
    wait_for(lambda: "call 1" in _all(notes), what="the call")
    node.signal(signal.SIGTERM)
    node.wait_for_log("Warm shutdown")
    assert node.running
    flag.touch()
    assert node.wait() == 0
    assert outcome(waited) == [str(flag), waited.id]

    node = celery_node(project, "-Q", "work", name="second@localhost")
    hung = holds.apply_async((str(tmp_path / "never"),), time_limit=0.5)
    assert isinstance(outcome(hung), TimeLimitExceeded)
    node.wait_for_log("a call of until runs on though nobody waits for it")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_a_hung_call_makes_the_node_leave_as_a_hung_input_does(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, tmp_path: Path
) -> None:
    settings = "app.conf.concurrent_stuck_timeout = 1.5"
    project = celery_project(f"{SOURCE}\n{settings}\n", broker=redis_broker)
    node = celery_node(project, "-Q", "work")
    hung = [project.tasks.holds.apply_async((str(tmp_path / "never"),), time_limit=0.5)]
    hung.append(project.tasks.holds.apply_async((str(tmp_path / "never"),), time_limit=0.5))
    for result in hung:
        assert isinstance(outcome(result), TimeLimitExceeded)
    assert node.wait() == 1
    assert "a call of until is stuck: draining this node, to be replaced" in node.log()


def test_inputs_without_a_limit_do_not_hold_the_node_behind_a_hung_call(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, tmp_path: Path
) -> None:
    settings = "app.conf.concurrent_stuck_timeout = 1.5"
    project = celery_project(f"{SOURCE}\n{settings}\n", broker=redis_broker)
    notes, never = Notes(project), str(tmp_path / "never")
    node = celery_node(project, "-Q", "work")
    hung = project.tasks.holds.apply_async((never,), time_limit=0.5)
    wait_for(lambda: "call 1" in _all(notes), what="the call")
    behind = project.tasks.holds.delay(never)
    assert isinstance(outcome(hung), TimeLimitExceeded)
    assert node.wait() == 1
    assert str(outcome(behind)) == "a call of until before this is stuck"


def _all(notes: Notes) -> list[str]:
    return [what for _, what, _ in notes.all()]
