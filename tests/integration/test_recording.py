"""``celery fleet record`` beside real nodes: what it writes is a trace that can be planned."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from celery_concurrent.autoscaler.traces import read_trace
from tests.services.fixtures import MakeProject, StartNode
from tests.services.process import Process, free_port, program
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

SOURCE = """
    import asyncio

    from celery import Celery
    from celery_concurrent import concurrent

    app = Celery()
    app.conf.update(task_send_sent_event=True, worker_send_task_events=True)

    @app.task(queue="q")
    @concurrent(max_inputs=2)
    async def sleep(seconds):
        await asyncio.sleep(seconds)

    @app.task(queue="plain")
    def plain():
        pass
"""


def record(project: Project, *words: str, limit: str = ":") -> Process:
    """It is recording when this returns; or at least, soon."""
    command = [sys.executable, "-m", "celery", "-A", project.name, "fleet", "record", *words]
    process = Process(
        [program("sh"), "-c", f'{limit}; exec "$@"', "sh", *command],
        log_path=project.folder / f"{words[0]}.log",
        cwd=project.folder,
        # In another zone than nodes and publishers.
        env={**project.environ, "TZ": "JST-9"},
    )
    process.wait_for_log("recording q into", 30)
    return process


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_recorded_is_when_inputs_were_sent_and_how_long_they_ran(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=broker)
    celery_node(project, "-Q", "q,plain")
    path = project.folder / "trace"
    process = record(project, "q", "--trace", str(path))

    def heard() -> bool:
        # The broker may take a moment to tell.
        project.tasks.sleep.delay(0).get(timeout=10)
        return path.stat().st_size > 0

    wait_for(heard, 10, what="a recorded input")
    project.tasks.plain.delay().get(timeout=10)
    # Two run at once: the node fetches the others a second later, and they have arrived by then.
    for result in [project.tasks.sleep.delay(1) for _ in range(4)]:
        result.get(timeout=10)
    wait_for(lambda: len(long(path)) == 4, 10, what=lambda: f"four of {path.read_text()}")
    process.signal(signal.SIGINT)
    assert process.wait(10) == 0
    found = long(path)
    assert {line["task"] for line in lines(path)} == {f"{project.name}.sleep"}
    arrivals = [line["arrival_s"] for line in found]
    assert max(arrivals) - min(arrivals) < 1
    assert all(0 < time.time() - arrival < 60 for arrival in arrivals)
    assert all(1 <= line["seconds"] < 5 for line in found)
    assert len(read_trace(path)) == len(lines(path))
    assert f"recorded {len(lines(path))} inputs in {path}" in process.log_tail()


def long(path: Path) -> list[dict[str, Any]]:
    return [line for line in lines(path) if line["seconds"] >= 1]


@pytest.mark.redis
def test_it_goes_on_when_the_broker_comes_back(
    celery_project: MakeProject, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    project = celery_project(SOURCE, broker=Broker(kind="redis", url=url, backend=url))
    path = project.folder / "trace"
    process = record(project, "q", "--trace", str(path))
    private_redis.restart()
    process.wait_for_log("the broker is away, and what happens is not recorded")
    events = project.app.events.default_dispatcher

    def heard() -> bool:
        with events() as dispatcher:
            dispatcher.send("task-received", uuid="u", name=f"{project.name}.sleep")
            dispatcher.send("task-succeeded", uuid="u", runtime=7.0)
        return path.stat().st_size > 0

    wait_for(heard, 20, what="a recorded input")
    process.signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert lines(path)[0]["seconds"] == 7.0
    assert "set task_send_sent_event = True" in process.log_tail()


@pytest.mark.redis
def test_it_stops_by_itself_and_says_why_nothing_came(
    celery_project: MakeProject, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=redis_broker)
    path = project.folder / "trace"
    process = record(project, "q", "--trace", str(path), "--seconds", "0.1")
    assert process.wait(10) == 0
    assert "recorded 0 inputs and no file\nno node told of an input: start nodes with -E" in (
        process.log_tail()
    )
    assert not path.exists()


@pytest.mark.redis
def test_a_full_disk_ends_it_and_leaves_what_was_written(
    celery_project: MakeProject, redis_broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=redis_broker)
    # Two blocks of 512 bytes: its log has room.
    process = record(project, "q", "--trace", "t", limit="ulimit -f 2")

    def has_ended() -> bool:
        with project.app.events.default_dispatcher() as dispatcher:
            dispatcher.send("task-received", uuid="u", name=f"{project.name}.sleep")
            dispatcher.send("task-succeeded", uuid="u", runtime=7.0)
        return not process.running

    wait_for(has_ended, 20, what="the end of the recording")
    assert process.returncode == 1
    assert "Error: cannot write to t any more: " in process.log_tail()
    whole = [line for line in (project.folder / "t").read_text().splitlines() if line[-1] == "}"]
    assert len(whole) > 5


def test_a_broker_behind_two_that_refuse_is_listened_to(
    celery_project: MakeProject, broker: Broker
) -> None:
    away = [broker.at(free_port()) for _ in range(2)]
    project = celery_project(SOURCE, broker=replace(broker, url=";".join([*away, broker.url])))
    process = record(project, "q", "--trace", "t")
    process.signal(signal.SIGINT)
    assert process.wait(10) == 0


@pytest.mark.redis
def test_without_a_broker_it_says_so_and_leaves_no_file(
    celery_project: MakeProject, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    project = celery_project(SOURCE, broker=Broker(kind="redis", url=url, backend=url))
    private_redis.stop()
    process = Process(
        [sys.executable, "-m", "celery", "-A", project.name, "fleet", "record", "--trace", "t"],
        log_path=project.folder / "record.log",
        cwd=project.folder,
        env=project.environ,
    )
    assert process.wait(30) == 1
    assert "Error: the broker does not answer: " in process.log_tail()
    assert not (project.folder / "t").exists()
