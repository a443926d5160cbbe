"""Awaiting tasks from asyncio programs: by one subscription, or by polling."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from fastapi import FastAPI

from celery_concurrent import ConfigurationError, acall, aresult
from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.witness import outcome

SOURCE = """
import asyncio
from celery import Celery
from celery_concurrent import acall, aresult, concurrent

app = Celery(__name__)

@app.task
@concurrent(max_inputs=500)
async def echo(value, seconds=0.0):
    await asyncio.sleep(seconds)
    return value

@app.task
@concurrent(max_inputs=10)
async def fail(error):
    raise {"KeyError": KeyError, "TimeoutError": TimeoutError}[error]("from the task")

@app.task
@concurrent(max_inputs=10)
async def calls(value):
    return await three(value)

async def three(value):
    first, second = await asyncio.gather(acall(echo, value), acall(echo, value=value + 1))
    return [first, second, await aresult(echo.delay(value + 2))]

@app.task(queue="many")
@concurrent(max_inputs=50)
async def calls_at_once(value):
    return await three(value)
"""


@pytest.fixture
def project(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> Iterator[Project]:
    made = celery_project(SOURCE, broker=redis_broker)
    celery_node(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what a loop leaves behind is told by warnings
        yield made


def connections(project: Project) -> int:
    """Clients of the server that listen to a subscription, those of nodes among them."""
    import redis

    with redis.Redis.from_url(project.broker.url) as client:
        return sum(int(each["sub"]) > 0 for each in client.client_list())


def test_calls_results_groups_errors_and_timeouts(project: Project) -> None:
    tasks = project.tasks

    async def main() -> None:
        assert await acall(tasks.echo, 1) == 1
        assert await acall(tasks.echo.s(seconds=0.01).set(priority=0), 2) == 2
        assert await aresult(tasks.echo.delay(3)) == 3
        done = tasks.echo.delay(4)
        assert [await aresult(done), await aresult(done)] == [4, 4]
        assert await aresult(group(tasks.echo.s(n) for n in range(5))()) == [0, 1, 2, 3, 4]
        assert await acall(tasks.calls, 10) == [10, 11, 12]
        with pytest.raises(KeyError, match="from the task"):
            await acall(tasks.fail, "KeyError")
        with pytest.raises(TimeoutError, match="from the task"):
            await aresult(tasks.fail.delay("TimeoutError"), timeout=10)
        with pytest.raises(CeleryTimeoutError, match=r"no result of .* within 0.1 s"):
            await aresult(tasks.echo.delay(5, seconds=5), timeout=0.1)
        with pytest.raises(ConfigurationError, match=r"acall\(\) got 3"):
            await acall(3)
        with pytest.raises(ConfigurationError, match=r"aresult\(\) got 'id', a str"):
            await aresult("id")

    asyncio.run(main(), debug=False)


@pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)
@pytest.mark.parametrize("backend", ["redis", "file"])
def test_many_inputs_call_others_at_once(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    tmp_path: Path,
    pool: str,
    backend: str,
) -> None:
    broker = redis_broker
    if backend == "file":
        broker = replace(redis_broker, backend=f"file://{tmp_path}")
    project = celery_project(SOURCE, broker=broker)
    celery_node(project, "-Q", "celery,many", pool=pool)
    results = [project.tasks.calls_at_once.delay(number) for number in range(50)]
    for number, result in enumerate(results):
        assert outcome(result, 30.0) == [number, number + 1, number + 2]


def test_500_waits_share_one_subscription(project: Project) -> None:
    async def main() -> None:
        results = [project.tasks.echo.delay(n, seconds=0.5) for n in range(500)]
        # Only now: publishing subscribes too, for Celery's own result.get().
        before = connections(project)
        waiting = asyncio.gather(*(aresult(result, timeout=30) for result in results))
        await asyncio.sleep(0.1)
        during = await asyncio.to_thread(connections, project)
        assert await waiting == list(range(500))
        assert during - before == 1

    asyncio.run(main())


def test_waits_for_one_result_and_cancelled_ones_do_not_disturb_each_other(
    project: Project,
) -> None:
    async def main() -> None:
        result = project.tasks.echo.delay("shared", seconds=0.5)
        waits = [asyncio.create_task(aresult(result)) for _ in range(20)]
        await asyncio.sleep(0.05)
        for wait in waits[::2]:
            wait.cancel()
        values = await asyncio.gather(*waits, return_exceptions=True)
        assert values[1::2] == ["shared"] * 10
        assert all(isinstance(value, asyncio.CancelledError) for value in values[::2])
        for _ in range(50):  # one after another: the connection is there already
            assert await acall(project.tasks.echo, "again") == "again"

    asyncio.run(main())


def test_several_loops_and_a_closed_one_leave_nothing_behind(project: Project) -> None:
    for turn in range(3):
        assert asyncio.run(acall(project.tasks.echo, turn)) == turn


def test_a_web_app_awaits_inputs(project: Project) -> None:
    web = FastAPI()

    @web.get("/echo/{value}")
    async def echo(value: int) -> dict[str, Any]:
        return {"value": await acall(project.tasks.echo, value, seconds=0.2)}

    async def main() -> None:
        transport = httpx.ASGITransport(app=web)
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
            start = time.monotonic()
            answers = await asyncio.gather(*(client.get(f"/echo/{n}") for n in range(40)))
            assert [answer.json() for answer in answers] == [{"value": n} for n in range(40)]
            assert time.monotonic() - start < 40 * 0.2 / 2, "requests waited for each other"

    with warnings.catch_warnings():
        warnings.simplefilter("default")  # httpx's and FastAPI's own
        asyncio.run(main())


@pytest.mark.parametrize("kind", ["file", "db"])
def test_other_backends_are_polled_off_the_loop(
    celery_project: MakeProject,
    celery_node: StartNode,
    redis_broker: Broker,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "db":
        pytest.importorskip("sqlalchemy")
    backend = {"file": f"file://{tmp_path}", "db": f"db+sqlite:///{tmp_path}/results"}[kind]
    broker = Broker(kind="redis", url=redis_broker.url, backend=backend)
    project = celery_project(SOURCE, broker=broker)
    celery_node(project)
    kind_of_backend = type(project.app.backend)
    look, looked = kind_of_backend.get_task_meta, set()

    def noting(*args: Any, **kwargs: Any) -> Any:
        looked.add(threading.get_ident())
        return look(*args, **kwargs)

    monkeypatch.setattr(kind_of_backend, "get_task_meta", noting)
    asyncio.run(_checked(project))
    assert looked
    assert threading.get_ident() not in looked


async def _checked(project: Project) -> None:
    assert await acall(project.tasks.echo, 1, seconds=0.1) == 1
    values = await asyncio.gather(*(acall(project.tasks.echo, n) for n in range(20)))
    assert values == list(range(20))
    assert await acall(project.tasks.calls, 1) == [1, 2, 3]
    with pytest.raises(KeyError, match="from the task"):
        await acall(project.tasks.fail, "KeyError")


def test_a_restart_of_redis_during_a_wait_loses_no_result(
    celery_project: MakeProject, celery_node: StartNode, private_redis: RedisServer
) -> None:
    url = private_redis.url()
    project = celery_project(SOURCE, broker=Broker(kind="redis", url=url, backend=url))
    celery_node(project)

    async def main() -> None:
        # Unknown to Celery's own waiting, which gives up when it cannot connect.
        for number in range(20):
            signature = project.tasks.echo.s(number, seconds=1.5).set(task_id=f"in-{number}")
            signature.apply_async(ignore_result=False)
        results = [project.app.AsyncResult(f"in-{number}") for number in range(20)]
        waiting = asyncio.gather(*(aresult(result, timeout=60) for result in results))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(private_redis.restart)
        assert await waiting == list(range(20))

    asyncio.run(main())
