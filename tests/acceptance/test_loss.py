"""Nodes killed at random moments under load lose nothing."""

from __future__ import annotations

import random
import time

import pytest

from tests.services import load
from tests.services.fixtures import MakeProject, StartNode
from tests.services.load import ROUNDS, SLOTS, SOON_VISIBLE, Load
from tests.services.node import Node
from tests.services.project import Broker, Project

#: Longer than a stock worker needs for what it has reserved, on a busy machine.
PATIENT = {**SOON_VISIBLE, "visibility_timeout": 15}

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600 + 10 * ROUNDS)]


def test_a_node_killed_on_redis_loses_nothing_and_repeats_only_what_was_in_flight(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    """Every input is at any moment in its queue, unacknowledged, or done.

    With ``concurrent_batching=False`` this fails sooner or later: kombu pops an input
    and registers it a round trip later, and a kill between the two loses it.
    """
    source = load.source(broker_transport_options=SOON_VISIBLE)
    project = celery_project(source, broker=redis_broker)
    inputs = Load(project)
    in_flight: list[set[str]] = []
    with inputs.publishing():
        for number in range(ROUNDS):
            node = every_other_with_a_reserve(celery_node, project, number)
            inputs.wait_for_a_start(after=time.time())
            time.sleep(random.uniform(0.0, 1.0))
            node.kill()
            with inputs.lock:
                queued, unacked = load.redis_contents(redis_broker.url)
                lost = inputs.without_result() - queued - unacked
                assert not lost, f"neither queued nor unacknowledged nor done: {lost}"
            in_flight.append(unacked)
    celery_node(project, *load.NODE, loglevel="WARNING", ready=False)
    inputs.wait_until_done(120.0)
    for id, runs in inputs.repeated().items():
        assert len(runs) - 1 <= sum(id in held for held in in_flight), (id, runs)


def test_a_node_killed_on_rabbitmq_loses_nothing_and_repeats_only_what_was_in_flight(
    celery_project: MakeProject, celery_node: StartNode, rabbitmq_broker: Broker
) -> None:
    """RabbitMQ marks what it had delivered and got no acknowledgement for."""
    project = celery_project(load.source(), broker=rabbitmq_broker)
    inputs = Load(project)
    with inputs.publishing():
        for number in range(ROUNDS):
            node = every_other_with_a_reserve(celery_node, project, number)
            inputs.wait_for_a_start(after=time.time())
            time.sleep(random.uniform(0.0, 1.0))
            node.kill()
    celery_node(project, *load.NODE, loglevel="WARNING", ready=False)
    inputs.wait_until_done(120.0)
    repeated = inputs.repeated()
    for runs in repeated.values():
        assert all(run.redelivered for run in runs[1:]), runs
        assert len({run.pid for run in runs}) == len(runs), f"twice in one node: {runs}"
    again = sum(len(runs) - 1 for runs in repeated.values())
    assert again <= ROUNDS * SLOTS, f"{again} runs were repeated in {ROUNDS} kills"


def test_a_node_killed_beside_a_stock_worker_loses_nothing(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    """What the stock worker runs meanwhile is left to it, and it runs what the dead had."""
    source = load.source(broker_transport_options=PATIENT if broker.kind == "redis" else {})
    inputs = Load(celery_project(source, broker=broker))
    stock = celery_node(inputs.project, "-Q", "noops,naps", "-c", "5", pool="threads")
    killed = set()
    with inputs.publishing():
        for number in range(ROUNDS):
            node = every_other_with_a_reserve(celery_node, inputs.project, number)
            inputs.wait_for_a_start_in(node.pid)
            time.sleep(random.uniform(0.0, 1.0))
            node.kill()
            killed.add(node.pid)
    celery_node(inputs.project, *load.NODE, loglevel="WARNING", ready=False)
    inputs.wait_until_done(120.0)
    assert stock.pid in {run.pid for runs in inputs.runs().values() for run in runs}
    for runs in inputs.repeated().values():
        assert {run.pid for run in runs[:-1]} <= killed, runs
        assert len({run.pid for run in runs}) == len(runs), runs


def every_other_with_a_reserve(celery_node: StartNode, project: Project, number: int) -> Node:
    env = load.RESERVING if number % 2 else {}
    return celery_node(project, *load.NODE, loglevel="WARNING", ready=False, env=env)
