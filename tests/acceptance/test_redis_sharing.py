"""A node beside stock workers and other users of the same Redis."""

from __future__ import annotations

import random

import pytest
import redis

from celery_concurrent.embedded import EmbeddedBroker
from celery_concurrent.errors import MissingExtraError
from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import SOON_VISIBLE, Load
from tests.services.needs import missing
from tests.services.node import Node
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

#: The queues that a stock worker's threads can serve.
SYNC = ("-Q", "noops,naps")

#: Seconds in which a node that was asleep starts an input, on a busy machine.
AT_ONCE = 1.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def start(celery_node: StartNode, project: Project, kind: str) -> Node:
    if kind == "stock":
        return celery_node(project, *SYNC, "-c", "5", pool="threads")
    return celery_node(project, *SYNC)


@pytest.mark.parametrize(("killed", "heir"), [("stock", "node"), ("node", "stock")])
def test_what_a_killed_worker_had_is_run_by_another_kind(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    killed: str,
    heir: str,
) -> None:
    source = load.source(broker_transport_options=SOON_VISIBLE)
    inputs = Load(celery_project(source, broker=redis_broker))
    first = start(celery_node, inputs.project, killed)
    # The stock worker reserves all of them: together they must not outlast the timeout.
    inputs.publish("nap", 20, 0.8)
    wait_for(lambda: len(inputs.runs()) >= 5, what="the first runs")
    # A stock worker that is killed between popping an input and registering it loses it.
    wait_for(lambda: held_only_as_unacked(inputs), what="all inputs reserved")
    first.kill()
    _, unacked = load.redis_contents(redis_broker.url)
    assert len(unacked) >= 5
    start(celery_node, inputs.project, heir)
    inputs.wait_until_done(60.0)
    repeated = inputs.repeated()
    assert set(repeated) <= unacked
    assert all(runs[0].pid == first.pid and len(runs) == 2 for runs in repeated.values())


def test_a_stock_worker_and_a_node_share_queues(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    nodes = {start(celery_node, inputs.project, kind).pid for kind in ("stock", "node")}
    for _ in range(10):
        inputs.publish("noop", 30)
        inputs.publish("nap", 30, 0.05)
    inputs.wait_until_done()
    assert not inputs.repeated()
    assert {runs[0].pid for runs in inputs.runs().values()} == nodes
    wait_for(lambda: not load.held_by_redis(redis_broker.url), what="the last acknowledgement")


def test_priorities_go_first_and_equals_in_their_order(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    """In kombu's Redis, 0 is the highest of the steps 0, 3, 6 and 9."""
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    published = [
        (priority, inputs.publish("one", 1, 0.0, priority=priority)[0])
        for priority in random.choices([0, 3, 6, 9], k=40)
    ]
    celery_node(inputs.project, "-Q", "mixed")
    inputs.wait_until_done()
    expected = [id for _, id in sorted(published, key=lambda pair: pair[0])]
    assert list(inputs.runs()) == expected


@pytest.mark.parametrize(
    ("strategy", "expected"), [("round_robin", "ababababab"), ("priority", "aaaaaaaaaab")]
)
def test_queues_of_a_lane_are_served_by_the_order_strategy(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    strategy: str,
    expected: str,
) -> None:
    source = load.source(broker_transport_options={"queue_order_strategy": strategy})
    inputs = Load(celery_project(source, broker=redis_broker))
    queue_of = {}
    for queue in "ab":
        for id in inputs.publish("plain", 10, queue=queue):
            queue_of[id] = queue
    celery_node(inputs.project, "-Q", "a,b", "-c", "1")
    inputs.wait_until_done()
    served = "".join(queue_of[id] for id in inputs.runs())
    # Which of the queues comes first is open where they take turns.
    assert served.startswith((expected, expected.translate({97: 98, 98: 97})))


def test_a_node_keeps_to_its_key_prefix_and_is_woken_there(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    source = load.source(broker_transport_options={"global_keyprefix": "shop:"})
    inputs = Load(celery_project(source, broker=redis_broker))
    celery_node(inputs.project, *load.NODE)
    inputs.wait_until_done(ids=inputs.publish("anoop", 100))
    assert max(inputs.idle_delays()) < AT_ONCE
    with redis.Redis.from_url(redis_broker.url) as client:
        keys = [key.decode() for key in client.keys("*")]
    assert [key for key in keys if not key.startswith(("shop:", "celery-task-meta-"))] == []
    wait_for(lambda: not load.held_by_redis(redis_broker.url, "shop:"), what="the acks")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(["-client|tracking"], id="tracking"),
        pytest.param(
            [
                "resetkeys",
                "~unacked",
                "~unacked_*",
                "~_kombu*",
                "~*celery*",
                "~*noops*",
                "~mixed*",
                "~*naps*",
            ],
            id="leases",
        ),
        # Celery's remote control subscribes to this one, as a pattern that has to be named.
        pytest.param(["resetchannels", "&/0.celery.pidbox"], id="channel"),
    ],
)
def test_a_user_who_may_not_track_keys_gets_kombus_own_way_and_a_warning(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    rule: list[str],
) -> None:
    with private_redis.client() as client:
        words = ["on", ">secret", "~*", "&*", "+@all", *rule]
        client.execute_command("ACL", "SETUSER", "shop", *words)
    url = f"redis://shop:secret@127.0.0.1:{private_redis.port}/0"
    broker = Broker(kind="redis", url=url, backend=private_redis.url(1))
    inputs = Load(celery_project(load.source(), broker=broker))
    node = celery_node(inputs.project, *load.NODE)
    for name in ("noop", "anoop"):
        inputs.publish(name, 100)
    inputs.wait_until_done()
    assert not inputs.repeated()
    log = node.log()
    assert log.count("inputs are taken in kombu's own way") == 1
    assert "secret" not in log


def test_a_node_with_a_password_takes_inputs_its_own_way(
    celery_project: MakeProject, celery_node: StartNode, private_redis: RedisServer
) -> None:
    with private_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">secret", "~*", "&*", "+@all")
    url = f"redis://shop:secret@127.0.0.1:{private_redis.port}/0"
    broker = Broker(kind="redis", url=url, backend=url)
    inputs = Load(celery_project(load.source(), broker=broker))
    node = celery_node(inputs.project, *load.NODE)
    assert max(inputs.idle_delays()) < AT_ONCE
    assert "in kombu's own way" not in node.log()


def test_a_node_takes_inputs_from_a_unix_socket(
    celery_project: MakeProject, celery_node: StartNode, redis_url: str
) -> None:
    try:
        embedded = EmbeddedBroker()
    except MissingExtraError as error:
        missing("a server for the embedded broker", str(error))
    with embedded:
        broker = Broker(kind="redis", url=embedded.url, backend=redis_url)
        inputs = Load(celery_project(load.source(), broker=broker))
        node = celery_node(inputs.project, *load.NODE)
        assert max(inputs.idle_delays()) < AT_ONCE
        node.stop()
        assert not inputs.repeated()


def held_only_as_unacked(inputs: Load) -> bool:
    """Whether every input that has not ended is registered as unacknowledged."""
    queued, unacked = load.redis_contents(inputs.project.broker.url)
    return not queued and inputs.without_result() <= unacked
