"""Connections that are lost while the broker lives: a node goes on, and keeps what it has."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import redis

from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import ROUNDS, Load
from tests.services.node import Node
from tests.services.project import Broker
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

#: Seconds after which the node consumes again.
WITHIN = 5.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def kill_redis_clients(url: str, node: Node, kind: str) -> None:
    """Have Redis close those connections of a node, once it has some."""
    with redis.Redis.from_url(url) as client:
        for id in wait_for(lambda: clients_of(client, node)[kind], what=f"{kind} of {node.name}"):
            client.client_kill_filter(_id=id)


def clients_of(client: redis.Redis, node: Node) -> dict[str, list[str]]:
    """The ids of a node's connections, by kind."""
    ports = {at.laddr.port for at in psutil.Process(node.pid).net_connections("tcp")}
    own = [one for one in client.client_list() if int(one["addr"].split(":")[-1]) in ports]
    tracked = [one["id"] for one in own if "t" in one["flags"]]
    return {
        "all": [one["id"] for one in own],
        "normal": [one["id"] for one in own if "P" not in one["flags"]],
        "pubsub": [one["id"] for one in own if "P" in one["flags"]],
        "tracked": tracked,
        "one tracked": tracked[:1],
        "woken by": list({one["redir"] for one in own if "t" in one["flags"]}),
    }


@pytest.mark.batching
@pytest.mark.parametrize("kind", ["all", "normal", "tracked", "one tracked", "woken by", "pubsub"])
def test_a_node_goes_on_when_redis_closes_its_connections(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, kind: str
) -> None:
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    node = celery_node(inputs.project, *load.NODE)
    goes_on(inputs, lambda: kill_redis_clients(redis_broker.url, node, kind))


@pytest.mark.batching
@pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)
def test_a_node_without_a_free_slot_goes_on_when_redis_closes_its_connections(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, pool: str
) -> None:
    """Nothing is expected on such a connection then, and it is closed without an error."""
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    node = celery_node(inputs.project, "-Q", "naps", pool=pool)
    inputs.wait_until_started(inputs.publish("nap", 20, 3.0))
    kill_redis_clients(redis_broker.url, node, "tracked")
    inputs.publish("nap", 20, 0.1)
    inputs.wait_until_done()
    assert not inputs.repeated()
    assert node.running


def test_a_node_goes_on_when_redis_forgets_its_scripts(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    node = celery_node(inputs.project, *load.NODE)

    def forget() -> None:
        with redis.Redis.from_url(redis_broker.url) as client:
            client.script_flush()

    goes_on(inputs, forget)
    assert "Connection to broker lost" not in node.log()


#: How much a node does at each turn of its hub.
TICKS = """
from celery.worker.control import inspect_command


@inspect_command()
def ticks(state):
    return len(state.consumer.hub.on_tick)
"""


@pytest.mark.batching
def test_nothing_is_left_in_the_hub_of_a_connection_that_is_lost(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(load.source() + TICKS, broker=redis_broker)
    node = celery_node(project, *load.NODE)

    def ticks() -> int:
        replies = wait_for(lambda: project.app.control.broadcast("ticks", reply=True, limit=1))
        return int(next(iter(replies[0].values())))

    before = ticks()
    for turn in range(3):
        kill_redis_clients(redis_broker.url, node, "woken by")
        wait_for(lambda: node.log().count("Connection to broker lost") == turn + 1)  # noqa: B023
        assert ticks() == before


def test_a_node_goes_on_when_rabbitmq_closes_its_connections(
    celery_project: MakeProject,
    celery_node: StartNode,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_broker: Broker,
) -> None:
    inputs = Load(celery_project(load.source(), broker=rabbitmq_broker))
    celery_node(inputs.project, *load.NODE)
    vhost = rabbitmq_broker.url.rpartition("/")[2]
    goes_on(inputs, lambda: rabbitmq_server.ctl("close_all_connections", "--vhost", vhost, "test"))


#: Acknowledges what is not there: RabbitMQ closes the channel, as after its consumer_timeout.
WRONG_ACK = """
from celery.worker.control import control_command
from kombu.transport.pyamqp import Channel


@control_command()
def acknowledge_nothing(state):
    Channel.basic_ack(next(iter(state.consumer.lanes)).channel, 1_000_000)
"""


@pytest.mark.batching
def test_a_node_goes_on_when_rabbitmq_closes_its_channel(
    celery_project: MakeProject, celery_node: StartNode, rabbitmq_broker: Broker
) -> None:
    inputs = Load(celery_project(load.source() + WRONG_ACK, broker=rabbitmq_broker))
    node = celery_node(inputs.project, *load.NODE)
    goes_on(inputs, lambda: inputs.project.app.control.broadcast("acknowledge_nothing"))
    assert "RabbitMQ closed a channel" in node.log()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_connections_that_redis_closes_under_load_cost_and_repeat_nothing(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    """What was in an answer that got lost on its way comes back at once, not in an hour."""
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    node = celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False)
    with inputs.publishing():
        for turn in range(ROUNDS * 3):
            inputs.wait_for_a_start(WITHIN + 15.0 * (turn == 0), after=time.time())
            time.sleep(random.uniform(0.0, 0.3))
            kill_redis_clients(redis_broker.url, node, random.choice(["all", "normal", "tracked"]))
    inputs.wait_until_done()
    assert not inputs.repeated()
    wait_for(lambda: not load.held_by_redis(redis_broker.url), what="the last acknowledgement")


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A proxy before the run's Redis."""
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(redis_url: str, proxy: Proxy) -> dict[str, str]:
    """The environment of a node whose broker is behind the proxy."""
    return {"BROKER": f"redis://127.0.0.1:{proxy.port}/{redis_url.rpartition('/')[2]}"}


@pytest.mark.batching
def test_a_node_goes_on_when_the_network_cuts_its_connections(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    proxy: Proxy,
    proxied: dict[str, str],
) -> None:
    inputs = Load(celery_project(load.source(), broker=redis_broker))
    celery_node(inputs.project, *load.NODE, env=proxied)
    goes_on(inputs, proxy.cut)


def test_a_node_goes_on_when_the_network_comes_back_that_stood_still(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    proxy: Proxy,
    proxied: dict[str, str],
) -> None:
    options = {"health_check_interval": 1, "socket_timeout": 2}
    source = load.source(broker_transport_options=options)
    inputs = Load(celery_project(source, broker=redis_broker))
    celery_node(inputs.project, *load.NODE, env=proxied)

    def stand_still() -> None:
        proxy.freeze()
        # Longer than the checks that a connection lives are apart; the results go elsewhere.
        inputs.wait_until_done(ids=inputs.ids[:7])
        proxy.thaw()

    goes_on(inputs, stand_still)


def goes_on(inputs: Load, lose: Callable[[], object]) -> None:
    """Lose connections while inputs run, wait for their slot, and wait for their time."""
    through = inputs.publish("anap", 5, 6.0) + inputs.publish("nap", 2, 6.0)
    in_line = inputs.publish("one", 4, 1.0)
    due = time.time() + 6.0
    later = inputs.publish("noop", 20, countdown=6.0)
    inputs.wait_until_started([*through, in_line[0]])
    wait_for(lambda: load.backlog(inputs.project) == 0, what="all of them in the node")
    lose()
    lost_at = time.time()
    inputs.wait_until_started(inputs.publish("anoop", 20), timeout=WITHIN)
    print(f"consumed again within {time.time() - lost_at:.2f} s")
    inputs.wait_until_done(60.0)
    assert not inputs.repeated()
    assert all(run.at > due - 0.1 for id in later for run in inputs.runs()[id])
