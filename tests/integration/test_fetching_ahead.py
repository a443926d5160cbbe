"""Where inputs are short a node fetches some ahead, and what turns out to wait goes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.result import AsyncResult

from celery_concurrent import task_map
from celery_concurrent.worker.ahead import STANDSTILL
from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, backlog, release, started

#: Of the project as its broker and the environment have it.
Variant = Callable[..., Project]
SLOTS = 2
SOURCE = (
    NOTING
    + f"""
import asyncio, os
from celery import Celery
from celery_concurrent import concurrent
from kombu import Queue
from kombu.common import Broadcast

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.task_default_queue_type = os.environ.get("QUEUE_TYPE", "classic")
app.conf.worker_prefetch_multiplier = 1
if "RESERVE" in os.environ:
    app.conf.concurrent_reserve = int(os.environ["RESERVE"])

async def held(number):
    if number < 0:
        await asyncio.sleep(0.005)
        return
    note("started")
    while not os.path.exists(__file__ + f".{{number}}"):
        await asyncio.sleep(0.01)
    return number

def task(name, most={SLOTS}, **options):
    async def run(number):
        return await held(number)

    return app.task(name=name, **options)(concurrent(max_inputs=most)(run))

hold = task(__name__ + ".hold", rate_limit=os.environ.get("RATE"))
if "OTHER" in os.environ:
    other = task("other", queue="other")
if "BESIDE" in os.environ:
    beside = task("beside", most=6)
if "PLAIN" in os.environ:
    @app.task(name="plain")
    def plain(number):
        asyncio.run(held(number))
if "BROADCAST" in os.environ:
    app.conf.task_queues = [Queue(__name__), Broadcast("all")]
    told = task("told", most=1, queue="all")
"""
)
BROKERS = [
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def project(broker: Broker, celery_project: MakeProject) -> Iterator[Project]:
    made = celery_project(SOURCE, broker=broker)
    yield made
    release(made, *range(12))


@pytest.fixture
def variant(celery_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> Variant:
    """Makes the project with these in the environment, its nodes' and the publisher's."""

    def make(broker: Broker, **env: str) -> Project:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return celery_project(SOURCE, broker=broker)

    return make


def prefetched(project: Project, node: Node) -> int:
    """How many inputs the node may hold now."""
    stats: Any = project.app.control.inspect([node.name], timeout=5).stats()
    return int(stats[node.name]["prefetch_count"])


def run_short_ones(project: Project, count: int = 250) -> None:
    """More than the node looks back on."""
    list(task_map(project.tasks.hold, [-1] * count, timeout=60))


def make_short(project: Project, node: Node) -> None:
    """Run short inputs until the node fetches ahead; on a busy machine some may last."""

    def fetches_ahead() -> bool:
        run_short_ones(project)
        return prefetched(project, node) == 2 * SLOTS

    wait_for(fetches_ahead, 60.0, what=lambda: f"{prefetched(project, node)} of {2 * SLOTS}")


def test_what_waits_goes_back_in_its_order_and_runs_once(
    project: Project, celery_node: StartNode
) -> None:
    node = celery_node(project)
    queue = project.app.conf.task_default_queue
    assert prefetched(project, node) == SLOTS  # nothing is known of its inputs
    make_short(project, node)
    ids = [project.tasks.hold.delay(number).id for number in range(12)]
    node.wait_for_log("hold lasts: 2 inputs go back")
    for ahead in ids[SLOTS : 2 * SLOTS]:
        assert f"[{ahead}] received" in node.log()
    wait_for(lambda: backlog(project, queue) == 10, what=lambda: f"{backlog(project, queue)} of 10")
    assert prefetched(project, node) == SLOTS
    for number in range(12):
        release(project, number)
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=20) == number
    assert sorted(started(project, ids)[:SLOTS]) == [0, 1]
    assert started(project, ids)[SLOTS:] == list(range(SLOTS, 12))
    assert node.stop() == 0


def test_another_node_runs_what_waits(project: Project, celery_node: StartNode) -> None:
    first = celery_node(project)
    make_short(project, first)
    held = [project.tasks.hold.delay(number).id for number in range(2 * SLOTS)]
    wait_for(lambda: len(started(project, held)) == SLOTS)
    celery_node(project, name="second")
    # Nothing ends: what the first has fetched ahead is the second's.
    wait_for(lambda: len(started(project, held)) == 2 * SLOTS, 20.0)
    release(project, *range(2 * SLOTS))
    for number, id in enumerate(held):
        assert project.app.AsyncResult(id).get(timeout=20) == number
    assert sorted(started(project, held)) == list(range(2 * SLOTS))


def test_what_waits_goes_back_also_when_inputs_are_known_to_last(
    project: Project, celery_node: StartNode
) -> None:
    node = celery_node(project)
    make_short(project, node)
    ids = [project.tasks.hold.delay(number).id for number in range(2 * SLOTS)]
    wait_for(lambda: f"[{ids[-1]}] received" in node.log())
    time.sleep(0.12)  # no longer short, and not yet long enough for the line to go back
    release(project, 0)
    wait_for(lambda: len(started(project, ids)) == SLOTS + 1)
    queue = project.app.conf.task_default_queue
    wait_for(lambda: backlog(project, queue) == 1, what=lambda: f"{backlog(project, queue)} of 1")
    assert 3 not in started(project, ids)


@pytest.mark.redis
@pytest.mark.batching
def test_what_waits_goes_back_when_redis_takes_it(
    private_redis: RedisServer, redis_url: str, celery_project: MakeProject, celery_node: StartNode
) -> None:
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    project = celery_project(SOURCE, broker=broker)
    node = celery_node(project)
    make_short(project, node)
    ids = [project.tasks.hold.delay(number).id for number in range(SLOTS + 1)]
    wait_for(lambda: f"[{ids[-1]}] received" in node.log())
    with private_redis.client() as server:
        server.config_set("min-replicas-to-write", 1)
        node.wait_for_log("hold lasts: 1 inputs go back")
        node.wait_for_log("Redis refuses for now")
        server.config_set("min-replicas-to-write", 0)
    celery_node(project, name="second")
    wait_for(lambda: len(started(project, ids)) == SLOTS + 1, 20.0)
    release(project, *range(SLOTS + 1))
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=20) == number
    assert sorted(started(project, ids)) == list(range(SLOTS + 1))


def test_two_messages_of_one_id_both_run_though_one_has_gone_back(
    project: Project, celery_node: StartNode
) -> None:
    node = celery_node(project)
    make_short(project, node)
    hold = project.tasks.hold
    ids = [hold.delay(number).id for number in range(SLOTS)]
    wait_for(lambda: len(started(project, ids)) == SLOTS)
    for number, id in enumerate(ids, SLOTS):
        hold.apply_async((number,), task_id=id)
    node.wait_for_log("hold lasts: 2 inputs go back")
    release(project, 1)
    wait_for(lambda: started(project, ids)[SLOTS:] == [0])  # beside the first of its id
    release(project, 2)
    wait_for(lambda: started(project, ids)[SLOTS:] == [0, 1])  # after the first of its id
    release(project, 0, 3)
    assert node.stop() == 0
    assert backlog(project, project.app.conf.task_default_queue) == 0
    assert sorted(started(project, ids)) == [0, 0, 1, 1]


@pytest.mark.redis
def test_what_waits_beside_another_function_of_its_queue_stays(
    redis_broker: Broker, variant: Variant, celery_node: StartNode
) -> None:
    # The lane has eight slots, of which two are for these.
    project = variant(redis_broker, BESIDE="1")
    node = celery_node(project)
    stays(project, node, [project.tasks.hold.delay(number) for number in range(8)])


def test_what_waits_for_slots_of_inputs_from_elsewhere_stays(
    broker: Broker, variant: Variant, celery_node: StartNode
) -> None:
    project = variant(broker, OTHER="1")
    node = celery_node(project, "-Q", f"{project.name},other")
    hold = project.tasks.hold
    results = [hold.apply_async((number,), queue="other") for number in range(SLOTS)]
    for result in results:
        Notes(project).wait(result.id, "started")
    stays(project, node, [*results, hold.delay(SLOTS)])


def test_what_waits_beside_plain_tasks_stays(
    broker: Broker, variant: Variant, celery_node: StartNode
) -> None:
    project = variant(broker, PLAIN="1")
    node = celery_node(project, "-c", "4")
    plain = [project.tasks.plain.delay(number) for number in range(2)]
    for result in plain:  # acknowledged by then, and so none of the broker's count
        Notes(project).wait(result.id, "started")
    stays(project, node, [*plain, *(project.tasks.hold.delay(n) for n in range(2, 6))])


def stays(project: Project, node: Node, results: list[AsyncResult]) -> None:
    """Nothing goes back, and all run once."""
    node.wait_for_log(f"[{results[-1].id}] received")
    time.sleep(3 * STANDSTILL)
    release(project, *range(len(results)))
    for result in results:
        wait_for(result.ready, 20.0)
    assert "go back" not in node.log()
    assert node.log().count("received") == len(results)


@pytest.mark.redis
def test_broadcasts_that_wait_are_not_lost(
    redis_broker: Broker, variant: Variant, celery_node: StartNode
) -> None:
    project = variant(redis_broker, BROADCAST="1")
    node = celery_node(project)
    exchange = project.app.amqp.queues["all"].exchange
    with project.app.connection() as connection:
        exchange(connection.default_channel).declare()
    # Read together: with all slots taken the next one would wait in the socket. Celery publishes
    # to a list where the exchange is not declared on the channel (5.7).
    node.signal(signal.SIGSTOP)
    ids = [project.tasks.told.apply_async((n,), declare=[exchange]).id for n in range(4)]
    node.signal(signal.SIGCONT)
    node.wait_for_log(f"[{ids[-1]}] received")
    time.sleep(3 * STANDSTILL)
    release(project, *range(4))
    for number, id in enumerate(ids):
        assert project.app.AsyncResult(id).get(timeout=20) == number


def test_the_reserve_comes_back_with_short_inputs(project: Project, celery_node: StartNode) -> None:
    node = celery_node(project)
    make_short(project, node)
    project.tasks.hold.delay(0), project.tasks.hold.delay(1)
    project.tasks.hold.delay(2)
    node.wait_for_log("hold lasts: 1 inputs go back")
    release(project, 0, 1, 2)
    make_short(project, node)


@pytest.mark.parametrize(
    ("kind", "options", "env"),
    [
        pytest.param("redis", ("--disable-prefetch",), {}, marks=pytest.mark.redis),
        pytest.param("redis", (), {"RESERVE": "0"}, marks=pytest.mark.redis),
        pytest.param("redis", (), {"RATE": "200/s"}, marks=pytest.mark.redis),
        # One slot for two functions, which would wait until a reserve has run out.
        pytest.param("redis", ("-c", "1"), {"OTHER": "1"}, marks=pytest.mark.redis),
        pytest.param("rabbitmq", (), {"RESERVE": "0"}, marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq", (), {"QUEUE_TYPE": "quorum"}, marks=pytest.mark.rabbitmq),
        pytest.param(
            "redis", ("-P", "eventlet"), {}, marks=[pytest.mark.redis, pytest.mark.eventlet]
        ),
    ],
)
def test_a_node_fetches_nothing_ahead_where_it_must_not(
    kind: str,
    options: tuple[str, ...],
    env: dict[str, str],
    variant: Variant,
    celery_node: StartNode,
    request: pytest.FixtureRequest,
) -> None:
    project = variant(request.getfixturevalue(f"{kind}_broker"), **env)
    pool = "eventlet" if "eventlet" in options else "concurrent"
    queues = [project.name, *(["other"] if "OTHER" in env else [])]
    options = () if pool == "eventlet" else options
    node = celery_node(project, "-Q", ",".join(queues), *options, pool=pool)
    run_short_ones(project)
    assert prefetched(project, node) == SLOTS
