"""What a real node answers of its inputs, and what its events tell of them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import outcome, watching

APP = """
    import asyncio
    import logging
    import sys
    import time
    from pathlib import Path

    from celery import Celery
    from celery.utils.log import get_task_logger

    from celery_concurrent import concurrent

    app = Celery(__name__)
    FOLDER = Path(__file__).parent
    task_logger = get_task_logger(__name__)
    plain_logger = logging.getLogger("shop.payments")

    @app.task(queue="held")
    @concurrent(max_inputs=4)
    async def talk(name, times):
        for number in range(times):
            task_logger.info("%s says %d", name, number)
            plain_logger.warning("%s warns %d", name, number)
            # asyncio.to_thread is nothing for eventlet's loop.
            in_thread = asyncio.sleep(0) if "eventlet" in sys.modules else asyncio.to_thread(
                plain_logger.warning, "%s in a thread %d", name, number
            )
            await in_thread
            await asyncio.sleep(0.01)
        print(f"{name} prints")

    @app.task(queue="held")
    @concurrent(max_inputs=2)
    def hold(flag):
        while not (FOLDER / flag).exists():
            time.sleep(0.01)

    @app.task(queue="held")
    @concurrent(max_inputs=2)
    def fail():
        raise ValueError("no <b>such</b> thing")
"""
POOLS = pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)


def ask(project: Project, node: Node, command: str, **arguments: Any) -> Any:
    """What the node answers to a command of Celery's remote control."""
    replies = project.app.control.broadcast(
        command, arguments=arguments, destination=[node.name], reply=True, timeout=10, limit=1
    )
    return replies[0][node.name]


@POOLS
def test_lines_of_inputs_that_interleave_stay_apart(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    node = celery_node(project, "-Q", "held", pool=pool)
    results = {name: project.tasks.talk.delay(name, 20) for name in ("ann", "bob", "cyd")}
    for result in results.values():
        outcome(result)
    for name, result in results.items():
        lines = ask(project, node, "input_log", input_id=result.id)["lines"]
        said = [line["text"] for line in lines if "says" in line["text"]]
        assert said == [f"{name} says {number}" for number in range(20)]
        texts = " ".join(line["text"] for line in lines)
        assert f"{name} prints" in texts
        assert pool == "eventlet" or f"{name} in a thread 19" in texts
        assert not any(other in texts for other in results if other != name)
        warned = [line for line in lines if line["text"] == f"{name} warns 3"]
        assert [(line["level"], line["logger"]) for line in warned] == [
            ("WARNING", "shop.payments")
        ]


def test_the_traceback_of_a_failure_is_among_its_lines(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    node = celery_node(project, "-Q", "held")
    failed = project.tasks.fail.delay()
    failed.wait(timeout=10, propagate=False)

    def last() -> str:
        return str(ask(project, node, "input_log", input_id=failed.id)["lines"][-1]["text"])

    wait_for(lambda: "ValueError: no <b>such</b> thing" in last(), what="the traceback")
    answer = ask(project, node, "input_log", input_id="nobody")
    assert answer == {"error": "no line of input nobody is kept here (any more)"}


def test_no_lines_are_kept_where_none_are_wanted(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP + "\n    app.conf.concurrent_log_lines = 0\n", broker=redis_broker)
    node = celery_node(project, "-Q", "held")
    outcome(talked := project.tasks.talk.delay("ann", 1))
    answer = ask(project, node, "input_log", input_id=talked.id)
    assert answer == {"error": "concurrent_log_lines=0: this node keeps no log lines"}


def test_celery_inspect_asks_for_an_inputs_lines_and_for_inputs(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    node = celery_node(project, "-Q", "held")
    outcome(talked := project.tasks.talk.delay("ann", 1))

    def inspect(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", project.name, "inspect", "--json", *words],
            cwd=project.folder,
            env=project.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(done.stdout)[node.name]

    said = [line["text"] for line in inspect("input_log", talked.id)["lines"]]
    assert "ann says 0" in said
    assert inspect("node_inputs") == {"inputs": [], "total": 0}


@POOLS
def test_a_node_tells_the_inputs_that_it_has(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    hold = project.tasks.hold
    node = celery_node(project, "-Q", "held", pool=pool)
    first = hold.delay("go")
    with watching(project) as events:
        events.wait_for_state(node.name, running=1)
        second, third = hold.delay("go"), hold.delay("go")
        events.wait_for_state(node.name, running=2, reserved=1)
        told = ask(project, node, "node_inputs")
        assert told["total"] == 3
        states = {each["id"]: each["state"] for each in told["inputs"]}
        assert sorted(states.values()) == ["reserved", "running", "running"]
        assert told["inputs"][0]["id"] == first.id
        assert told["inputs"][0]["task"] == told["inputs"][0]["group"] == hold.name
        assert told["inputs"][0]["seconds"] > 0
        assert set(states) == {first.id, second.id, third.id}
        cut = ask(project, node, "node_inputs", limit=1)
        assert (len(cut["inputs"]), cut["total"]) == (1, 3)
        (project.folder / "go").touch()
        for result in (first, second, third):
            outcome(result)
        events.wait_for_state(node.name, running=0)
    assert ask(project, node, "node_inputs") == {"inputs": [], "total": 0}


@POOLS
def test_events_tell_how_long_inputs_waited_and_ran_and_how_they_ended(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    hold, fail = project.tasks.hold, project.tasks.fail
    waiting = [hold.delay("go") for _ in range(2)]
    with watching(project) as events:
        node = celery_node(project, "-Q", "held", pool=pool)
        events.wait_for_state(node.name, running=2)
        failed = fail.delay()
        failed.wait(timeout=10, propagate=False)
        cancelled = hold.delay("never")
        (project.folder / "go").touch()
        for result in waiting:
            outcome(result)
        # In a slot by now, for both others have ended.
        events.wait_for_state(node.name, running=1, finished=3)
        cancelled.revoke(terminate=True)
        told = events.wait_for_state(
            node.name,
            outcomes={hold.name: {"succeeded": 2, "cancelled": 1}, fail.name: {"failed": 1}},
        )
    own = told["timing"][hold.name]
    assert (sum(own["wait"]), sum(own["run"])) == (3, 3)
    # Two waited for the node to start, which takes more than a tenth of a second.
    assert own["wait_sum"] > 0.2
    assert own["run_sum"] > 0
    assert told["last_input"]["id"] == cancelled.id
    assert told["last_input"]["task"] == hold.name
    assert told["cpu"] > 0
    assert told["rss"] > 1_000_000
