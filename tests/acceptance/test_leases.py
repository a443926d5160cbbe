"""Leases on Redis: what a node has taken is its own while it lives, and soon another's after.

CI runs these with short leases and pauses, ``make chaos`` also with the default one and long ones.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from celery_concurrent.redis.reaping import Reaper
from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import ROUNDS, SOON_VISIBLE, Load
from tests.services.node import Node
from tests.services.project import Broker
from tests.services.proxy import Proxy
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: The queues of ``nap`` and ``anap``, and that of ``nap`` for a stock worker.
NAPS = ("-Q", "naps,anaps")
SYNC = ("-Q", "naps")
#: Seconds of a short lease.
SHORT = 2.0
#: Seconds from a node's death to the next start of its inputs, with the default lease.
WITHIN = 15.0

#: Minutes that CI does not have; ``make chaos`` has more rounds than it.
full = [
    pytest.mark.chaos,
    pytest.mark.skipif(ROUNDS < 20, reason="the short form has run; `make chaos` runs this one"),
]
POOLS = ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]


class Results:
    """Counts how often the result of an input is stored: Celery publishes each time."""

    def __init__(self, url: str) -> None:
        connect: Any = redis.Redis.from_url
        self._client = connect(url)  # kept, for it takes its connections along
        self._pubsub = self._client.pubsub()
        self._pubsub.psubscribe("celery-task-meta-*")
        self._stored: Counter[str] = Counter()

    def stored(self) -> Counter[str]:
        while (told := self._pubsub.get_message()) is not None:
            if told["type"] == "pmessage":
                self._stored[told["channel"].decode().removeprefix("celery-task-meta-")] += 1
        return self._stored


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """A node that is paused, as a suspended machine would."""
    os.killpg(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(node.pid, signal.SIGCONT)


def pids(inputs: Load, id: str) -> list[int]:
    """In which nodes an input has started, in order."""
    return [run.pid for run in inputs.runs().get(id, [])]


def stored_by(inputs: Load, ids: list[str]) -> set[str]:
    """The names of the nodes whose results are stored (``result_extended``)."""
    backend = inputs.project.app.backend
    return {backend.get_task_meta(id)["worker"] for id in ids}


def lease_keys(url: str) -> set[str]:
    """What Redis still keeps of leases, but for what it remembers of lapsed ones."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return set(client.keys("unacked.held.*")) | set(client.zrange("unacked.leases", 0, -1))


@pytest.mark.parametrize(
    ("pool", "seconds"),
    [
        ("concurrent", 12.0),
        pytest.param("concurrent", 60.0, marks=full),
        pytest.param("eventlet", 60.0, marks=[*full, pytest.mark.eventlet]),
    ],
)
def test_an_input_that_outlasts_the_visibility_timeout_runs_once(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    seconds: float,
) -> None:
    source = load.source(broker_transport_options=SOON_VISIBLE)
    inputs = Load(celery_project(source, broker=redis_broker))
    node = celery_node(inputs.project, *NAPS, pool=pool)
    inputs.wait_until_started(
        [*inputs.publish("nap", 3, seconds), *inputs.publish("anap", 3, seconds)]
    )
    later = inputs.publish("nap", 1, 0.1, countdown=seconds - 2.0)
    wait_for(lambda: load.backlog(inputs.project) == 0, what="all of them in the node")
    celery_node(inputs.project, *NAPS)
    celery_node(inputs.project, *SYNC, "-c", "5", pool="threads")
    inputs.wait_until_done(seconds + 30.0)
    assert not inputs.repeated()
    assert pids(inputs, later[0]) == [node.pid]
    assert node.stop() == 0
    wait_for(lambda: len(lease_keys(redis_broker.url)) == 1, what="the other node's lease alone")


@pytest.mark.parametrize(
    ("pool", "conf"),
    [
        ("concurrent", {}),
        pytest.param("eventlet", {}, marks=[*full, pytest.mark.eventlet]),
    ],
)
def test_what_a_killed_node_had_starts_again_soon(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    conf: dict[str, Any],
) -> None:
    """The visibility timeout is Celery's own, an hour."""
    inputs = Load(celery_project(load.source(**conf), broker=redis_broker))
    first = celery_node(inputs.project, "-Q", "mixed,naps", pool=pool)
    through = inputs.publish("nap", 5, 600.0)
    inputs.wait_until_started(through)
    in_line = inputs.publish("one", 4, 2.0)
    inputs.wait_until_started(in_line[:1])
    wait_for(lambda: load.backlog(inputs.project) == 0, what="all of them in the node")
    second = celery_node(inputs.project, "-Q", "mixed,naps", pool=pool)
    young = inputs.publish("one", 4, 0.0)
    first.kill()
    killed_at = time.time()
    wait_for(
        lambda: all(pids(inputs, id)[1:] == [second.pid] for id in [*through, in_line[0]]),
        WITHIN,
        what="their second start",
    )
    starts = [inputs.runs()[id][1] for id in through]
    assert all(run.redelivered for run in starts)
    print(f"again within {max(run.at for run in starts) - killed_at:.2f} s")
    inputs.wait_until_done(30.0, ids=[*in_line, *young])
    order = [id for id, runs in sorted(inputs.runs().items(), key=lambda pair: pair[1][-1].at)]
    assert [id for id in order if id in in_line] == in_line, "the oldest first"


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("conf", "pause"),
    [
        pytest.param({"concurrent_redis_lease": SHORT}, 6.0, id="short"),
        pytest.param({}, 30.0, id="full", marks=full),
    ],
)
def test_a_node_that_was_paused_drops_what_others_have_by_now_and_goes_on(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    pool: str,
    conf: dict[str, Any],
    pause: float,
) -> None:
    source = load.source(**conf, result_extended=True)
    inputs = Load(celery_project(source, broker=redis_broker))
    node = celery_node(inputs.project, *NAPS, pool=pool)
    results = Results(redis_broker.backend)
    # Some are over by the time that it wakes, and run elsewhere; some run on in both.
    ids = [
        *(id for name in ("nap", "anap") for id in inputs.publish(name, 2, pause)),
        *(running := inputs.publish("anap", 2, pause + 6.0)),
    ]
    inputs.wait_until_started(ids)
    later = inputs.publish("nap", 1, 0.1, countdown=pause - 1.0)
    wait_for(lambda: load.backlog(inputs.project) == 0, what="all of them in the node")
    other = celery_node(inputs.project, *NAPS, pool=pool)
    with stopped(node):
        woken_at = time.time() + pause
        wait_for(lambda: time.time() > woken_at, pause + 1.0)
        assert all(pids(inputs, id) == [node.pid, other.pid] for id in ids)
    inputs.wait_until_done(pause + 30.0, ids=[*ids, *later])
    wait_for(lambda: not load.held_by_redis(redis_broker.url), what="the last acknowledgement")
    assert all(pids(inputs, id) == [node.pid, other.pid] for id in ids), "and not a third time"
    assert all([run.pid for run in inputs.runs("end")[id]] == [other.pid] for id in running)
    assert other.pid in pids(inputs, later[0])
    assert set(results.stored().values()) == {1}
    assert stored_by(inputs, ids) == {other.name}
    assert node.log().count("its inputs are others' by now") >= 1
    other.stop()
    fresh = inputs.publish("nap", 2, 0.1)
    inputs.wait_until_done(ids=fresh)
    assert all(pids(inputs, id) == [node.pid] for id in fresh)
    assert node.stop() == 0


def test_a_node_that_was_paused_beside_a_stock_worker_drops_what_that_one_has(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    """It restores by the visibility timeout, and says nothing of leases."""
    source = load.source(broker_transport_options=SOON_VISIBLE, result_extended=True)
    inputs = Load(celery_project(source, broker=redis_broker))
    node = celery_node(inputs.project, *SYNC)
    results = Results(redis_broker.backend)
    ids = inputs.publish("nap", 2, 14.0)
    inputs.wait_until_started(ids)
    stock = celery_node(inputs.project, *SYNC, "-c", "5", pool="threads")
    with stopped(node):
        wait_for(
            lambda: all(pids(inputs, id) == [node.pid, stock.pid] for id in ids),
            WITHIN,
            what="the stock worker's runs",
        )
    # It has them as unacknowledged when the node wakes, and registered: no ack may take that.
    node.wait_for_log("its inputs are others' by now")
    _, unacked = load.redis_contents(redis_broker.url)
    assert set(ids) <= unacked
    inputs.wait_until_done(30.0)
    assert results.stored() == dict.fromkeys(ids, 1)
    assert stored_by(inputs, ids) == {stock.name}
    wait_for(lambda: not load.held_by_redis(redis_broker.url), what="the last acknowledgement")


def test_what_ends_in_a_node_that_cannot_reach_its_broker_waits_and_is_dropped(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    redis_server: RedisServer,
) -> None:
    """Its results could be stored all the while, for they go elsewhere."""
    source = load.source(concurrent_redis_lease=SHORT, result_extended=True)
    inputs = Load(celery_project(source, broker=redis_broker))
    proxy = Proxy(redis_server.port)
    url = f"redis://127.0.0.1:{proxy.port}/{redis_broker.url.rpartition('/')[2]}"
    node = celery_node(inputs.project, *NAPS, env={"BROKER": url})
    results = Results(redis_broker.backend)
    ids = [id for name in ("nap", "anap") for id in inputs.publish(name, 8, 4.0)]
    inputs.wait_until_started(ids)
    proxy.freeze()
    other = celery_node(inputs.project, *NAPS)
    wait_for(lambda: all(pids(inputs, id) == [node.pid, other.pid] for id in ids), WITHIN)
    wait_for(
        lambda: all(node.pid in {run.pid for run in inputs.runs("end").get(id, [])} for id in ids)
    )
    inputs.wait_until_done()
    proxy.thaw()
    node.wait_for_log("its inputs are others' by now")
    assert results.stored() == dict.fromkeys(ids, 1)
    assert stored_by(inputs, ids) == {other.name}
    other.stop()
    inputs.wait_until_done(ids=inputs.publish("anap", 2, 0.1))
    proxy.close()


def test_a_node_that_was_paused_alone_goes_on_with_what_it_has(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    source = load.source(concurrent_redis_lease=1.0)
    inputs = Load(celery_project(source, broker=redis_broker))
    node = celery_node(inputs.project, *NAPS)
    inputs.wait_until_started(inputs.publish("nap", 2, 2.0) + inputs.publish("anap", 2, 6.0))
    with stopped(node):
        woken_at = time.time() + 4.0
        wait_for(lambda: time.time() > woken_at)
    inputs.wait_until_done()
    assert not inputs.repeated()
    assert "has lapsed" not in node.log()


def test_leases_outlast_a_broker_that_is_away_for_longer(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    redis_url: str,
) -> None:
    """All leases have run out by then; none of the nodes takes the others for dead."""
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    source = load.source(concurrent_redis_lease=4.0)
    inputs = Load(celery_project(source, broker=broker))
    nodes = [celery_node(inputs.project, *NAPS) for _ in range(3)]
    inputs.wait_until_started(
        [
            id
            for seconds in (3.0, 12.0)  # over while it is away, and not
            for name in ("nap", "anap")
            for id in inputs.publish(name, 8, seconds)
        ]
    )
    private_redis.stop()
    up_at = time.time() + 6.0
    wait_for(lambda: time.time() > up_at)
    private_redis.start()
    inputs.wait_until_done(30.0)
    fresh = inputs.publish("nap", 20, 0.2)
    inputs.wait_until_done(ids=fresh)
    wait_for(lambda: not load.held_by_redis(broker.url), what="the last acknowledgement")
    assert not inputs.repeated()
    assert not [node for node in nodes if "has lapsed" in node.log()]


def test_a_node_that_leaves_while_its_broker_is_away_leaves(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    redis_url: str,
) -> None:
    """Nobody can tell it whether what it runs is still its own: it runs again, later."""
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    source = load.source(concurrent_redis_lease=1.0)
    inputs = Load(celery_project(source, broker=broker))
    node = celery_node(inputs.project, *NAPS)
    inputs.wait_until_started(inputs.publish("nap", 2, 5.0) + inputs.publish("anap", 2, 5.0))
    node.signal(signal.SIGTERM)
    node.wait_for_log("Warm shutdown")
    private_redis.kill()
    node.wait(20.0)
    assert inputs.without_result() == set(inputs.ids)
    private_redis.start()
    celery_node(inputs.project, *NAPS)
    inputs.wait_until_done(30.0)


def test_a_reaper_that_is_no_node_puts_back_what_a_dead_one_had(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    """As the autoscaler does, before it starts another node."""
    inputs = Load(celery_project(load.source(concurrent_redis_lease=SHORT), broker=redis_broker))
    node = celery_node(inputs.project, *NAPS)
    ids = inputs.publish("nap", 5, 60.0) + inputs.publish("anap", 5, 60.0)
    inputs.wait_until_started(ids)
    reaper = Reaper(inputs.project.app, "autoscaler")
    reaper.start()
    wait_for(lambda: len(lease_keys(redis_broker.url)) == 3, what="two leases, one of which holds")
    node.kill()
    wait_for(lambda: load.backlog(inputs.project) == len(ids), what="all of them put back")
    reaper.close()
    assert not lease_keys(redis_broker.url) - {lease_of(redis_broker.url)}


def lease_of(url: str) -> str:
    """The lease that was found lapsed."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        (lease,) = client.zrange("unacked.lapsed", 0, -1)
    return str(lease)
