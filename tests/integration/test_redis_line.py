"""Results that leave from the event loop, on a connection that is kept: none is lost with it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, states
from celery.app.task import Context
from kombu.exceptions import EncodeError

from celery_concurrent.bridge import Tracing
from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.pool.hops import Hopper
from celery_concurrent.pool.threads import Threads
from celery_concurrent.redis import line as lines
from celery_concurrent.redis.line import Line
from celery_concurrent.redis.results import ResultWriter
from celery_concurrent.redis.storing import SHORT, Storing, Write
from tests.services.inputs import make_input
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for


@pytest.fixture
def client(private_redis: RedisServer) -> Iterator[redis.Redis]:
    """Of a server that nobody else has: all its connections are this test's."""
    with redis.Redis.from_url(private_redis.url(), decode_responses=True) as client:
        yield client


@pytest.fixture
def other(private_redis: RedisServer) -> Iterator[redis.Redis]:
    """Who does things to the first client's connections."""
    with redis.Redis.from_url(private_redis.url(), client_name="other") as other:
        other.ping()
        yield other


class BasicToken:
    """What a provider of credentials gives."""

    def try_get(self, name: str) -> str:
        return "default"

    def get_value(self) -> str:
        return "secret"


def fail(*_: Any, **__: Any) -> None:
    """In the place of a way that is not to be taken, or that is cut off."""
    raise redis.ConnectionError("cut off")


def close_all(other: redis.Redis) -> None:
    """Have Redis close all connections but this one."""
    for each in other.client_list():
        if each["name"] != "other":
            other.client_kill_filter(_id=each["id"])


def test_a_line_keeps_its_connection(client: redis.Redis, other: redis.Redis) -> None:
    line = Line()
    first = line.ask(client, "CLIENT", "ID")
    client.ping()  # the pool has another one for others
    assert line.ask(client, "CLIENT", "ID") == first
    assert len(other.client_list()) == 3


def test_an_error_that_redis_answers_leaves_it_open(client: redis.Redis) -> None:
    line = Line()
    first = line.ask(client, "CLIENT", "ID")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        line.ask(client, "NONSENSE")
    assert line.ask(client, "CLIENT", "ID") == first


def test_one_that_redis_has_closed_while_nobody_used_it_is_replaced(
    client: redis.Redis, other: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "IDLE", 0.0)
    line = Line()
    line.ask(client, "PING")
    assert line.is_open()
    close_all(other)
    wait_for(lambda: not line.is_open())
    line.ask(client, "PING")


def test_one_that_is_lost_in_use_raises_and_is_replaced(
    client: redis.Redis, other: redis.Redis
) -> None:
    line = Line()
    line.ask(client, "PING")
    close_all(other)
    with pytest.raises(redis.ConnectionError):
        line.ask(client, "PING")
    assert not line.is_open()
    line.ask(client, "PING")
    assert line.is_open()


def test_a_forked_child_has_a_connection_of_its_own(client: redis.Redis, tmp_path: Path) -> None:
    line = Line()
    first = line.ask(client, "CLIENT", "ID")
    child = os.fork()
    if not child:
        (tmp_path / "id").write_text(str(line.ask(client, "CLIENT", "ID")))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert int((tmp_path / "id").read_text()) != first
    assert line.ask(client, "CLIENT", "ID") == first


def test_one_whose_credentials_have_changed_goes_back_to_its_pool(client: redis.Redis) -> None:
    line = Line()
    first = line.ask(client, "CLIENT", "ID")
    line._connection.set_re_auth_token(BasicToken())
    assert not line.is_open()
    assert line.ask(client, "CLIENT", "ID") != first


def test_a_result_is_sent_where_that_takes_no_waiting(client: redis.Redis) -> None:
    storing = Storing()
    assert not storing.send(Write("a", "1", 60))  # a connection would have to be made
    storing.write(client, [Write("a", "1", 60)])
    assert storing.send(Write("b", "2", 60))
    storing.see_stored()
    assert client.mget("a", "b") == ["1", "2"]
    assert not storing.send(Write("c", "x" * (SHORT + 1), 60))
    storing.write(client, [Write("c", "3", 60)])  # nothing was sent before
    assert client.get("c") == "3"


@pytest.fixture
def writer(private_redis: RedisServer) -> Iterator[ResultWriter]:
    url = private_redis.url()
    app = Celery(broker=url, backend=url, set_as_current=False)
    threads = [Threads("results", most=1, idle_timeout=None), Threads("io", most=1)]
    yield ResultWriter(app._get_backend, threads[0], Hopper(threads[1]), sends_from_loop=True)
    for each in threads:
        each.close()


@pytest.fixture
def sent(writer: ResultWriter, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each result that tried could leave from the loop."""
    tried: list[bool] = []
    send = writer._storing.send

    def noted(write: Write) -> bool:
        tried.append(send(write))
        return tried[-1]

    monkeypatch.setattr(writer._storing, "send", noted)
    return tried


async def storing(writer: ResultWriter, id: str, result: Any, *, redelivered: bool = False) -> Any:
    """Store the success of an async input that has just begun."""
    request = Context({"id": id, "delivery_info": {"redelivered": redelivered}})
    CURRENT_INPUT.set(make_input(id, request, is_async=True))
    return await Tracing(partial(writer.store, id, result, states.SUCCESS, request=request))


def store(writer: ResultWriter, id: str, result: Any, **how: bool) -> Any:
    """The same, by itself."""
    wait_for(lambda: not writer._is_writing)  # it tells of a result before it looks for the next
    return asyncio.run(storing(writer, id, result, **how))


def results(client: redis.Redis, *ids: str) -> list[Any]:
    """What is stored, None where nothing is."""
    values: list[Any] = client.mget(f"celery-task-meta-{id}" for id in ids)
    return [value and json.loads(value)["result"] for value in values]


def test_a_lone_result_leaves_from_the_loop(
    client: redis.Redis, writer: ResultWriter, sent: list[bool]
) -> None:
    for number in range(3):
        assert store(writer, str(number), number) == number
    assert sent == [False, True, True]
    assert results(client, "0", "1", "2") == [0, 1, 2]


def test_a_success_that_may_be_stored_already_is_looked_for_first(
    client: redis.Redis, writer: ResultWriter, sent: list[bool]
) -> None:
    store(writer, "0", "first")
    store(writer, "0", "second", redelivered=True)
    assert sent == [False]
    assert results(client, "0") == ["first"]


def test_a_result_whose_connection_is_lost_is_stored(
    client: redis.Redis, other: redis.Redis, writer: ResultWriter, sent: list[bool]
) -> None:
    store(writer, "0", 0)
    close_all(other)
    store(writer, "1", 1)
    store(writer, "2", 2)
    assert sent[:2] == [False, True]
    assert results(client, "0", "1", "2") == [0, 1, 2]


def test_a_result_that_redis_refuses_at_first_is_stored(
    client: redis.Redis, writer: ResultWriter, sent: list[bool]
) -> None:
    store(writer, "0", 0)
    client.script_flush()
    store(writer, "1", 1)
    assert sent == [False, True]
    assert results(client, "0", "1") == [0, 1]


def test_a_long_result_does_not_leave_from_the_loop(
    client: redis.Redis, writer: ResultWriter, sent: list[bool]
) -> None:
    store(writer, "0", 0)
    store(writer, "1", "x" * 100_000)
    store(writer, "2", 2)
    assert sent == [False, True]  # it was not even tried
    assert results(client, "1", "2") == ["x" * 100_000, 2]


def test_a_result_that_cannot_be_encoded_is_its_own_inputs_failure(
    client: redis.Redis, writer: ResultWriter
) -> None:
    store(writer, "0", 0)
    with pytest.raises(EncodeError):
        store(writer, "1", object())
    store(writer, "2", 2)
    assert results(client, "0", "1", "2") == [0, None, 2]


@pytest.mark.parametrize("protocol", [2, 3])
def test_one_connection_is_enough(
    private_redis: RedisServer,
    client: redis.Redis,
    other: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    protocol: int,
) -> None:
    url = f"{private_redis.url()}?protocol={protocol}"
    app = Celery(broker=url, backend=url, set_as_current=False)
    app.conf.redis_max_connections = 1
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    threads = [Threads("results", most=1, idle_timeout=None), Threads("io", most=1)]
    writer = ResultWriter(app._get_backend, threads[0], Hopper(threads[1]), sends_from_loop=True)
    with monkeypatch.context() as patch:  # all of these together, not in Celery's own way
        patch.setattr(writer._plain, "store_result", fail)
        store(writer, "0", 0)
        store(writer, "1", 1, redelivered=True)  # which looks first
        store(writer, "2", 2)
        close_all(other)
        store(writer, "3", 3)
    monkeypatch.setattr(writer._storing, "write", fail)  # and this one is
    store(writer, "4", "x" * 1_000)
    assert results(client, *"01234") == [0, 1, 2, 3, "x" * 1_000]
    for each in threads:
        each.close()


def test_many_at_once_share_their_way(client: redis.Redis, writer: ResultWriter) -> None:
    store(writer, "first", 0)
    before: Any = client.info("commandstats")
    ids = [str(number) for number in range(300)]

    async def store_all() -> None:
        await asyncio.gather(*(storing(writer, id, int(id)) for id in ids))

    asyncio.run(store_all())
    after: Any = client.info("commandstats")
    assert results(client, *ids) == [int(id) for id in ids]
    made = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert made < 100
