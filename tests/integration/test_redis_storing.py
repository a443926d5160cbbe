"""Results on their way to a real Redis, many in one command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, states
from celery.backends.redis import RedisBackend

from celery_concurrent.redis import storing
from celery_concurrent.redis.encoding import Recorder
from celery_concurrent.redis.storing import MOST_BYTES, MOST_RESULTS, Storing, Write
from tests.services.process import free_port
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def own_client(private_redis: RedisServer) -> Iterator[redis.Redis]:
    """Of a server that nobody else has: what it counts is this test's."""
    with redis.Redis.from_url(private_redis.url(), decode_responses=True) as client:
        yield client


def calls(client: redis.Redis, command: str) -> int:
    found: Any = client.info("commandstats")
    return int(found.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_results_are_stored_for_their_time_and_told_to_those_who_wait(client: redis.Redis) -> None:
    with client.pubsub() as listener:  # type: ignore[no-untyped-call]  # redis-py's
        listener.subscribe("for-good", "for-a-while")
        for _ in range(2):
            listener.get_message(timeout=5)
        Storing().write(client, [Write("for-good", "a", 0), Write("for-a-while", b"b\xc3\xbc", 60)])
        told = [listener.get_message(timeout=5) for _ in range(2)]
    assert [(each["channel"], each["data"]) for each in told if each] == [
        ("for-good", "a"),
        ("for-a-while", "bü"),
    ]
    assert client.mget("for-good", "for-a-while") == ["a", "bü"]
    assert client.ttl("for-good") == -1
    assert 0 < client.ttl("for-a-while") <= 60


def test_nothing_is_nothing_to_do(client: redis.Redis) -> None:
    Storing().write(client, [])


def test_many_results_or_large_ones_are_several_calls(own_client: redis.Redis) -> None:
    client, sent = own_client, Storing()
    for writes, expected in (
        ([Write(f"key-{i}", "v", 60) for i in range(2 * MOST_RESULTS + 1)], 3),
        ([Write(f"large-{i}", "v" * (MOST_BYTES // 2), 60) for i in range(5)], 3),
        ([Write(f"huge-{i}", "v" * (MOST_BYTES + 1), 60) for i in range(2)], 2),
    ):
        before = calls(client, "evalsha")
        sent.write(client, writes)
        assert client.mget(write.key for write in writes) == [write.value for write in writes]
        # Those that find no script are asked again with its text.
        assert calls(client, "evalsha") - before == expected


def test_a_server_that_has_forgotten_the_script_is_told_it_again(client: redis.Redis) -> None:
    sent = Storing()
    sent.write(client, [Write("a", "1", 0)])
    client.script_flush()
    sent.write(client, [Write("b", "2", 0)])
    assert client.mget("a", "b") == ["1", "2"]


def test_where_scripts_are_forbidden_plain_commands_do_it(private_redis: RedisServer) -> None:
    with redis.Redis.from_url(private_redis.url()) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-@scripting"
        )
    url = private_redis.url().replace("redis://", "redis://plain:secret@")
    with redis.Redis.from_url(url, decode_responses=True, max_connections=1) as client:
        sent = Storing()
        for number in range(2):
            sent.write(client, [Write("a", str(number), 60), Write("b", "2", 0)])
            assert client.mget("a", "b") == [str(number), "2"]
        assert client.ttl("b") == -1
        assert calls(client, "evalsha") <= 1


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[redis.Redis]:
    """A cluster of one node, behind one address, spoken to as a plain Redis."""
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "databases": "1"}
    server = RedisServer(tmp_path / "cluster", settings=settings)
    try:
        server.start()
        with redis.Redis.from_url(server.url(), decode_responses=True) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            wait_for(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))
            yield client
    finally:
        server.kill()


def test_keys_of_different_slots_are_read_and_written_one_by_one(cluster: redis.Redis) -> None:
    writes = [Write(f"key-{number}", str(number), 60) for number in range(20)]
    for sent in (Storing(), Storing()):
        sent.write(cluster, writes)
        read = sent.read(cluster, [*(write.key for write in writes), "nothing"])
        assert read == {**{write.key: write.value for write in writes}, "nothing": None}
    fresh = Storing()
    assert fresh.read(cluster, ["key-1", "key-2"]) == {"key-1": "1", "key-2": "2"}


def test_a_success_is_not_overwritten_by_what_comes_after_it_in_its_batch(redis_url: str) -> None:
    app = Celery(broker=redis_url, backend=redis_url)
    recorder = Recorder(RedisBackend(app=app, url=redis_url))
    recorder.begin({})
    for state in (states.RETRY, states.SUCCESS, states.RETRY):
        result = 42 if state == states.SUCCESS else ValueError("again")
        recorder.backend.store_result("1", result, state)
    stored = [json.loads(write.value)["status"] for write in recorder.writes]
    assert stored == [states.RETRY, states.SUCCESS]


def test_nothing_is_read_for_no_key(client: redis.Redis) -> None:
    assert Storing().read(client, []) == {}


def test_other_refusals_are_raised(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_STORE", "return redis.call('LPUSH', 'text', 'value')")
    monkeypatch.setattr(storing, "_STORE_SHA", "0" * 40)
    client.set("text", "value")
    sent = Storing()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        sent.write(client, [Write("a", "1", 0)])
    assert client.get("a") is None
