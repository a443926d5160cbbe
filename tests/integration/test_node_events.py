"""Real nodes tell their state to a real receiver, on both brokers."""

from __future__ import annotations

import itertools
import json
import signal
import time
from functools import partial

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Broker
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for
from tests.services.witness import outcome, watching

APP = """
    import os
    import time
    from pathlib import Path

    from celery import Celery

    from celery_concurrent import concurrent, enter, method, service

    app = Celery(__name__)
    FOLDER = Path(__file__).parent

    def wait_for(flag):
        while not (FOLDER / flag).exists():
            time.sleep(0.01)

    @app.task(queue="held")
    @concurrent(max_inputs=4, target_inputs=3)
    def hold(flag):
        wait_for(flag)

    @app.task(queue="limited", rate_limit="1/h")
    @concurrent(max_inputs=4)
    def limited():
        return 1

    @app.task(queue="quick")
    def quick():
        return 1

    @service(app, queue="model", name="Model")
    @concurrent(max_inputs=2)
    class Model:
        @enter
        def load(self):
            wait_for("loaded")

        @method
        def answer(self):
            return 42
"""
EVENTS = pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)


@EVENTS
def test_a_node_that_loads_is_starting_and_then_ready(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    with watching(project) as events:
        node = celery_node(
            project, "-Q", "model", pool=pool, ready=False, env={"CUDA_VISIBLE_DEVICES": "GPU-1a"}
        )
        starting = events.wait_for_state(node.name, 30, state="starting")
        wait_for(lambda: len(events.states(node.name)) > 2, what="events while it loads")
        assert {event["state"] for event in events.states(node.name)} == {"starting"}
        (project.folder / "loaded").touch()
        ready = events.wait_for_state(node.name, state="ready")
        assert outcome(project.tasks.Model.answer.delay()) == 42
        events.wait_for_state(node.name, arrived=1, finished=1, running=0)
    assert starting["pid"] == ready["pid"] == node.pid
    assert starting["age"] >= starting["state_age"] > 0
    assert ready["state_age"] < ready["age"]
    assert {name: ready[name] for name in ("queues", "device", "slots", "target", "note")} == {
        "queues": ["model"],
        "device": "GPU-1a",
        "slots": 2,
        "target": 2,
        "note": None,
    }
    assert ready["tasks"] == {"Model": {"slots": 2, "target": 2, "running": 0, "reserved": 0}}
    assert not any(type.startswith("task-") for type in events.types)
    assert broker.url not in json.dumps(events.states(node.name))


def test_an_input_that_runs_is_told_at_once(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(APP, broker=broker)
    hold = project.tasks.hold
    # Nobody but us: Celery's own events are off altogether.
    node = celery_node(project, "-Q", "held", "--without-heartbeat")
    with watching(project) as events:
        events.wait_for_state(node.name, state="ready", running=0, slots=4, target=3)
        later = hold.apply_async(("go",), countdown=60)
        events.wait_for_state(node.name, scheduled=1, reserved=0)
        held = [hold.delay("go") for _ in range(6)]
        told = events.wait_for_state(node.name, running=4, scheduled=1)
        assert told["tasks"][hold.name] == {"slots": 4, "target": 3, "running": 4, "reserved": 0}
        assert told["queues"] == ["held"]
        (project.folder / "go").touch()
        for result in held:
            outcome(result)
        events.wait_for_state(node.name, running=0, arrived=6, finished=6)
    later.revoke()
    assert not any(type.startswith(("task-", "worker-")) for type in events.types)


@EVENTS
def test_inputs_that_wait_for_their_rate_limit_are_reserved(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, pool: str
) -> None:
    """Or an autoscaler would take the node for an idle one."""
    project = celery_project(APP, broker=redis_broker)
    node = celery_node(project, "-Q", "limited", pool=pool)
    with watching(project) as events:
        held = [project.tasks.limited.delay() for _ in range(4)]
        wait_for(lambda: any(result.successful() for result in held))
        events.wait_for_state(node.name, running=0, finished=1, reserved=3, scheduled=0)


def test_changed_limits_and_queues_are_told(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    node = celery_node(project, "-Q", "held")
    control = project.app.control
    with watching(project) as events:
        events.wait_for_state(node.name, slots=4, target=3)
        control.pool_shrink(2, destination=[node.name])
        events.wait_for_state(node.name, slots=2, target=2)
        control.add_consumer("other", destination=[node.name])
        events.wait_for_state(node.name, queues=["held", "other"])


@EVENTS
def test_a_node_that_drains_tells_until_its_last_input_has_ended(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    node = celery_node(project, "-Q", "held", pool=pool)
    with watching(project) as events:
        held = project.tasks.hold.delay("go")
        events.wait_for_state(node.name, state="ready", running=1)
        node.signal(signal.SIGTERM)
        events.wait_for_state(node.name, state="draining", running=1)
        told = len(events.states(node.name))
        wait_for(lambda: len(events.states(node.name)) > told + 1, what="events while it drains")
        (project.folder / "go").touch()
        assert node.wait() == 0
        events.wait_for_state(node.name, state="draining", running=0, finished=1)
    outcome(held)


@pytest.mark.timing
def test_events_are_told_each_second_and_never_more_than_ten_times(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(APP, broker=broker)
    node = celery_node(project, "-Q", "quick", "-c", "2")
    with watching(project) as events:
        events.wait_for_state(node.name, state="ready")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            project.tasks.quick.delay()
        busy = len(events.states(node.name))
        wait_for(lambda: events.states(node.name)[-1]["running"] == 0, 60)
        time.sleep(4)  # idle
    told = [event["timestamp"] for event in events.states(node.name)]
    gaps = [after - before for before, after in itertools.pairwise(told)]
    assert busy > 10
    assert min(gaps) > 0.08
    assert max(gaps) < 1.5, gaps


def said(node: Node, times: int, text: str) -> bool:
    return node.log().count(text) == times


def test_a_lost_broker_does_not_hurt(
    celery_project: MakeProject, celery_node: StartNode, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    project = celery_project(APP, broker=Broker(kind="redis", url=url, backend=url))
    node = celery_node(project, "-Q", "quick")
    for turn in (1, 2):
        with watching(project) as events:
            events.wait_for_state(node.name, state="ready")
        private_redis.stop()
        wait_for(partial(said, node, turn, "state cannot be told"))
        private_redis.start()
        wait_for(partial(said, node, turn, "state is told again"))
    with watching(project) as events:
        events.wait_for_state(node.name, 20, state="ready")
        assert outcome(project.tasks.quick.delay(), 20) == 1
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


@pytest.mark.rabbitmq
def test_connections_that_the_broker_closes_are_made_again(
    celery_project: MakeProject,
    celery_node: StartNode,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_broker: Broker,
) -> None:
    project = celery_project(APP, broker=rabbitmq_broker)
    node = celery_node(project, "-Q", "held")
    vhost = rabbitmq_broker.url.rpartition("/")[2]
    rabbitmq_server.ctl("close_all_connections", "--vhost", vhost, "test")
    node.wait_for_log("this node's state is told again")
    with watching(project) as events:
        events.wait_for_state(node.name, state="ready")


def test_a_stop_does_not_wait_for_a_broker_that_is_gone(
    celery_project: MakeProject, celery_node: StartNode, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    project = celery_project(APP, broker=Broker(kind="redis", url=url, backend=url))
    node = celery_node(project, "-Q", "held")
    private_redis.kill()
    node.wait_for_log("this node's state cannot be told")
    node.signal(signal.SIGTERM)
    node.wait(timeout=20)


def test_a_failed_enter_ends_the_node_and_its_events(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    source = APP.replace('wait_for("loaded")', "raise ValueError('no model')")
    project = celery_project(source, broker=redis_broker)
    with watching(project) as events:
        node = celery_node(project, "-Q", "model", ready=False)
        assert node.wait() == 1
        wait_for(lambda: events.states(node.name))
    assert {event["state"] for event in events.states(node.name)} <= {"starting", "draining"}
    assert "no model" in node.log()
