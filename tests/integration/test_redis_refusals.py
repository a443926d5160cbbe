"""A Redis that refuses for a while, as in a failover: the node goes on when it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from celery_concurrent.redis.refusals import is_for_now
from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes

SOURCE = (
    NOTING
    + """
import asyncio, os
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.concurrent_redis_lease = 1.0

@app.task
@concurrent(max_inputs=2)
async def hold(flag):
    note("started")
    while not os.path.exists(__file__ + f".{flag}"):
        await asyncio.sleep(0.01)
    note("ended")
    return flag
"""
)


def without_replicas(server: redis.Redis, on: bool) -> None:
    server.config_set("min-replicas-to-write", int(on))


def read_only(server: Any, on: bool) -> None:
    # Of a master that is nowhere.
    server.execute_command("REPLICAOF", *(("127.0.0.1", "1") if on else ("NO", "ONE")))


def full(server: redis.Redis, on: bool) -> None:
    server.config_set("maxmemory", int(on))


REFUSALS = [
    (without_replicas, "NOREPLICAS"),
    (read_only, "ReadOnlyError"),
    (full, "OutOfMemoryError"),
]


@pytest.fixture
def project(private_redis: RedisServer, redis_url: str, celery_project: MakeProject) -> Project:
    broker = Broker(kind="redis", url=private_redis.url(), backend=redis_url)
    return celery_project(SOURCE, broker=broker)


@pytest.mark.batching
@pytest.mark.parametrize(("refuse", "_"), REFUSALS)
def test_a_node_goes_on_when_redis_takes_writes_again(
    project: Project,
    celery_node: StartNode,
    private_redis: RedisServer,
    refuse: Callable[[Any, bool], None],
    _: str,
) -> None:
    node = celery_node(project)
    hold, notes = project.tasks.hold, Notes(project)

    def started() -> list[str]:
        return [id for id, what, _ in notes.all() if what == "started"]

    results = [hold.delay(number) for number in range(4)]
    wait_for(lambda: len(started()) == 2)
    with private_redis.client() as server:
        refuse(server, True)
        for kind in ("normal", "pubsub"):  # a new connection is refused as well
            server.client_kill_filter(_type=kind, skipme=True)
        (project.folder / f"{project.name}.py.0").touch()
        # Longer than the node's lease.
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            assert node.running, node.log()
            time.sleep(0.05)
        refuse(server, False)
    for number in range(1, 4):
        (project.folder / f"{project.name}.py.{number}").touch()
    assert [result.get(timeout=20) for result in results] == [0, 1, 2, 3]
    assert "Redis refuses for now" in node.log()
    # Nobody else was there to take what the node had.
    assert sorted(started()) == sorted(result.id for result in results)


@pytest.mark.batching
@pytest.mark.parametrize(("refuse", "_"), REFUSALS)
def test_a_result_waits_until_redis_takes_it(
    celery_project: MakeProject,
    celery_node: StartNode,
    private_redis: RedisServer,
    redis_url: str,
    refuse: Callable[[Any, bool], None],
    _: str,
) -> None:
    broker = Broker(kind="redis", url=redis_url, backend=private_redis.url())
    project = celery_project(SOURCE, broker=broker)
    celery_node(project)
    notes = Notes(project)
    results = [project.tasks.hold.delay(number) for number in range(2)]
    wait_for(lambda: len(notes.all()) == 2)
    with private_redis.client() as server:
        refuse(server, True)
        for number in range(2):
            (project.folder / f"{project.name}.py.{number}").touch()
        wait_for(lambda: len(notes.all()) == 4, what="the ends of both")
        time.sleep(2.0)  # they are tried again and again
        assert [result.state for result in results] == ["PENDING"] * 2
        refuse(server, False)
    assert [result.get(timeout=20) for result in results] == [0, 1]


@pytest.mark.parametrize(("refuse", "words"), REFUSALS)
def test_refusals_for_a_while_are_told_from_others(
    private_redis: RedisServer, refuse: Callable[[Any, bool], None], words: str
) -> None:
    """By a command, and by a script, which words it in its own way."""
    server: Any
    with private_redis.client() as server:
        refuse(server, True)
        writes: list[Callable[[], Any]] = [
            lambda: server.set("key", 1),
            lambda: server.eval("return redis.call('SET', KEYS[1], 1)", 1, "key"),
        ]
        for write in writes:
            with pytest.raises(ResponseError) as raised:
                write()
            assert words in f"{type(raised.value).__name__} {raised.value}"
            assert is_for_now(raised.value)
        refuse(server, False)
        for refused in ("EVAL 'return nil' x", "NO SUCH"):
            with pytest.raises(ResponseError) as raised:
                server.execute_command(*refused.split())
            assert not is_for_now(raised.value)
