"""Brokers that are restarted under load: nodes go on within five seconds, and lose nothing."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import pytest

from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import ROUNDS, Load
from tests.services.project import Broker
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer

#: Seconds from the moment at which the broker takes connections.
WITHIN = 5.0

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]


def test_redis_restarts(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    redis_url: str,
) -> None:
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    inputs = Load(celery_project(load.source(), broker=broker))
    celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False, env=load.RESERVING)
    restart_under_load(inputs, private_redis.stop, private_redis.start)


def test_redis_restarts_with_the_results_in_it(
    celery_project: MakeProject, celery_node: StartNode, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    inputs = Load(celery_project(load.source(), broker=Broker(kind="redis", url=url, backend=url)))
    celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False)
    restart_under_load(inputs, private_redis.stop, private_redis.start, rounds=min(ROUNDS, 5))


@pytest.mark.eventlet
@pytest.mark.parametrize("where", ["redis", "rabbitmq"])
def test_a_broker_of_a_node_on_eventlet_restarts(
    celery_project: MakeProject,
    celery_node: StartNode,
    request: pytest.FixtureRequest,
    redis_url: str,
    where: str,
) -> None:
    server: RedisServer | RabbitMQServer = request.getfixturevalue(f"private_{where}")
    broker = Broker(kind=where, url=server.url(), backend=redis_url)
    inputs = Load(celery_project(load.source(), broker=broker))
    celery_node(inputs.project, *load.NODE, pool="eventlet", loglevel="WARNING", ready=False)
    restart_under_load(inputs, server.stop, server.start, rounds=min(ROUNDS, 5))


def test_rabbitmq_restarts(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_rabbitmq: RabbitMQServer,
    redis_url: str,
) -> None:
    broker = Broker(kind="rabbitmq", url=private_rabbitmq.url(), backend=redis_url)
    inputs = Load(celery_project(load.source(), broker=broker))
    celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False, env=load.RESERVING)
    restart_under_load(inputs, private_rabbitmq.stop, private_rabbitmq.start)


def restart_under_load(
    inputs: Load, stop: Callable[[], None], start: Callable[[], None], rounds: int = ROUNDS
) -> None:
    """Stop and start the broker over and over; each time, some inputs run on meanwhile."""
    waits = []
    with inputs.publishing():
        for _ in range(rounds):
            inputs.wait_for_a_start(after=time.time())
            through = inputs.publish("anap", 5, 10.0) + inputs.publish("nap", 2, 10.0)
            inputs.wait_until_started(through)
            time.sleep(random.uniform(0.0, 0.5))
            with inputs.lock:  # a client that publishes meanwhile would have to publish again
                stop()
                start()
                up = time.time()
            waits.append(inputs.wait_for_a_start(20.0, after=up) - up)
    inputs.wait_until_done(120.0)
    repeated = inputs.repeated()
    print(
        f"{rounds} restarts, {len(inputs.ids)} inputs, {len(repeated)} repeated; consumed again "
        f"within {max(waits):.2f} s, {statistics.median(waits):.2f} s in the middle"
    )
    assert not repeated, f"ran twice in one node: {repeated}"
    assert max(waits) < WITHIN, waits
