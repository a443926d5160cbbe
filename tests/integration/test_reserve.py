"""``concurrent_reserve``: inputs that a node fetches ahead, start in order, and give back unrun."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog, release, started

SOURCE = (
    NOTING
    + """
import asyncio, os, time
from celery import Celery
from celery.worker.control import control_command
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.task_default_queue_type = "{queue_type}"
app.conf.concurrent_reserve = 3

async def hold(number):
    note("started")
    while not os.path.exists(__file__ + f".{{number}}"):
        await asyncio.sleep(0.01)
    note("ended")
    return number

async def hold_early(number):
    return await hold(number)

@control_command()
def pause(state):
    # The thread that fetches and settles has something else to do.
    note("paused")
    while not os.path.exists(__file__ + ".go"):
        time.sleep(0.01)

@app.task(name=f"{{__name__}}.blocking")
@concurrent(max_inputs=2)
def blocking(number):
    note("started")
    while not os.path.exists(__file__ + f".{{number}}"):
        time.sleep(0.01)
    return number

held = app.task(name=f"{{__name__}}.held")(concurrent(max_inputs=2)(hold))
early = app.task(name=f"{{__name__}}.early", acks_late=False)(concurrent(max_inputs=2)(hold_early))
held_queue, early_queue, blocking_queue = __name__, f"{{__name__}}.early", f"{{__name__}}.blocking"
app.conf.task_routes = {{early.name: early_queue, blocking.name: blocking_queue}}
if "SOFT" in os.environ:
    app.conf.worker_soft_shutdown_timeout = 1
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
#: In green threads a slot comes back when its input is settled.
PASSING = [each for each in BROKERS if "eventlet" not in str(each.id)]


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


def fill(project: Project, name: str = "held") -> list[str]:
    """Publish twelve inputs, of which a node runs two and reserves three; their ids.

    On a quorum queue it reserves two more that are acknowledged early, for the prefetch count of
    its consumers can't be lowered.
    """
    is_quorum = project.app.conf.task_default_queue_type == "quorum"
    kept = 5 if is_quorum and name == "early" else 7
    ids = [getattr(project.tasks, name).delay(number).id for number in range(12)]
    queue = getattr(project.tasks, f"{name}_queue")
    wait_for(
        lambda: (len(started(project, ids)), backlog(project, queue)) == (2, kept),
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
    wait_for(lambda: (started(project, ids)[2:], backlog(project, queue)) == ([2], 6))
    for number in range(1, 12):
        release(project, number)
        wait_for(lambda: len(started(project, ids)) == min(number + 3, 12))  # noqa: B023
    assert started(project, ids)[2:] == list(range(2, 12))


@pytest.mark.parametrize("chosen", PASSING, indirect=True)
@pytest.mark.parametrize("name", ["held", "blocking"])
def test_what_is_reserved_starts_though_the_consumer_is_busy(
    project: Project, celery_node: StartNode, pool: str, name: str
) -> None:
    node = celery_node(project, "-Q", getattr(project.tasks, f"{name}_queue"), pool=pool)
    ids = fill(project, name)
    project.app.control.broadcast("pause", destination=[node.name])
    wait_for(lambda: "paused" in [what for _, what, _ in Notes(project).all()])
    release(project, *range(5))
    # Two ran, and three were in reserve: all that the node has.
    wait_for(lambda: len(started(project, ids)) == 5)
    assert sorted(started(project, ids)) == list(range(5))
    Path(f"{project.tasks.__file__}.go").touch()
    release(project, *range(5, 12))
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=20) == number
    assert sorted(started(project, ids)) == list(range(12))


@pytest.mark.parametrize("name", ["held", "blocking"])
def test_what_was_reserved_has_its_time_limits(
    project: Project, celery_node: StartNode, pool: str, name: str
) -> None:
    celery_node(project, "-Q", getattr(project.tasks, f"{name}_queue"), pool=pool)
    task = getattr(project.tasks, name)
    task.delay(0), task.delay(1)
    limited = [
        task.apply_async((2,), time_limit=0.2),
        task.apply_async((3,), soft_time_limit=0.2),
    ]
    last = task.delay(4)
    release(project, 0, 1, 4)
    assert last.get(timeout=20) == 4
    for result, error in zip(limited, (TimeLimitExceeded, SoftTimeLimitExceeded), strict=True):
        with pytest.raises(error):
            result.get(timeout=20)


def test_what_is_reserved_is_revoked_without_running(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    celery_node(project, pool=pool)
    ids = fill(project)
    project.app.control.revoke(ids[2], reply=True, timeout=5)
    release(project, 0)
    wait_for(lambda: len(started(project, ids)) == 3)
    assert sorted(started(project, ids)) == [0, 1, 3]
    assert project.app.AsyncResult(ids[2]).state == "REVOKED"


def test_a_warm_stop_gives_back_what_is_reserved(
    project: Project, celery_node: StartNode, pool: str
) -> None:
    node = celery_node(project, pool=pool)
    ids = fill(project)
    node.signal(signal.SIGTERM)
    # At once, for what runs may take hours.
    queue = project.app.conf.task_default_queue
    wait_for(lambda: backlog(project, queue) == 10, what=lambda: f"{backlog(project, queue)} of 10")
    assert node.running
    release(project, 0, 1)
    node.wait()
    assert sorted(started(project, ids)) == [0, 1]
    assert backlog(project, queue) == 10
    celery_node(project, pool=pool, name="next")
    release(project, *range(2, 12))
    wait_for(lambda: len(started(project, ids)) == 12)
    assert sorted(started(project, ids)) == list(range(12))
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=10) == number


@pytest.mark.parametrize("name", ["held", "early"])
def test_a_soft_stop_starts_nothing_of_it(
    project: Project, celery_node: StartNode, pool: str, name: str
) -> None:
    queue = getattr(project.tasks, f"{name}_queue")
    node = celery_node(project, "-Q", queue, pool=pool, env={"SOFT": "1"})
    ids = fill(project, name)
    node.signal(signal.SIGQUIT)
    node.wait_for_log("Initiating Soft Shutdown")
    release(project, 0)
    node.wait(timeout=20)
    assert sorted(started(project, ids)) == [0, 1]
    celery_node(project, "-Q", queue, pool=pool, name="next")
    release(project, *range(1, 12))
    again = {"held": [1], "early": []}[name]  # late acks give it back, early ones lose it
    wait_for(lambda: sorted(started(project, ids)) == sorted([*range(12), *again]))
