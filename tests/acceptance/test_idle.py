"""A node without work costs next to nothing, wakes at once, and does not grow with its work."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import psutil
import pytest
import redis

from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import Load
from tests.services.project import Broker
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

MIB = 1024 * 1024
#: Seconds over which an idle node is watched: kombu's own chores come round every 10 s.
WATCHED = 12.0

pytestmark = [pytest.mark.timing, pytest.mark.slow, pytest.mark.timeout(180)]


def calls(client: redis.Redis) -> Counter[str]:
    """How often Redis was called, by command."""
    stats = client.info("commandstats")
    return Counter({name: stat["calls"] for name, stat in stats.items()})


def test_an_idle_node_sleeps(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    redis_url: str,
) -> None:
    """What is left: Celery's heartbeat every 2 s, the lease's 2.5 s, kombu's sweep every 10 s."""
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    inputs = Load(celery_project(load.source(), broker=broker))
    node = celery_node(inputs.project, *load.NODE)
    inputs.wait_until_done(ids=inputs.publish("anoop", 50))
    wait_for(lambda: not load.held_by_redis(broker.url), what="the last acknowledgement")
    process = psutil.Process(node.pid)
    with private_redis.client() as client:
        before, used = calls(client), sum(process.cpu_times()[:2])
        time.sleep(WATCHED)
        made, used = calls(client) - before, sum(process.cpu_times()[:2]) - used
    assert made["cmdstat_eval"] <= WATCHED / 2.5 + 1, made
    # Of the renewals, Redis counts what the script does, too: 2.5 commands a second.
    assert made.total() < 7 * WATCHED, made
    assert made["cmdstat_evalsha"] <= len(load.QUEUES), made
    assert used < 0.05 * WATCHED, f"{used:.2f} s of CPU in {WATCHED} s"


def test_an_idle_node_wakes_at_once(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    inputs = Load(celery_project(load.source(), broker=broker))
    celery_node(inputs.project, *load.NODE)
    inputs.idle_delays(5)
    delays = inputs.idle_delays(20)
    assert statistics.median(delays) < 0.02, delays


def test_a_node_does_not_grow_with_the_inputs_it_has_run(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    inputs = Load(celery_project(load.source(), broker=broker))
    node = celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False)
    sizes = []
    for _ in range(5):
        inputs.publish("noop", 2000)
        inputs.publish("anoop", 2000)
        inputs.wait_until_done()
        sizes.append(psutil.Process(node.pid).memory_info().rss / MIB)
    # The first batches fill what is bounded: threads, connections, the last outcomes.
    assert sizes[-1] - sizes[1] < 10, [f"{size:.0f} MiB" for size in sizes]
