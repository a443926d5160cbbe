"""The scripts that take inputs from Redis, run by a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from celery_concurrent.redis.scripts import ACKNOWLEDGE, CLOSE_RECORD, TAKE

LEASE = "node.1"
KEYS = ("unacked", "unacked_index", f"unacked.held.{LEASE}", "unacked.leases", "unacked.lapsed")
TAKE_KEYS = (*KEYS, "record")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's database."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.zadd("unacked.leases", {LEASE: time.time() + 60})
        yield client


def put(client: redis.Redis, queue: str, *tags: str) -> None:
    """Put messages as kombu does: on the left, to be taken on the right."""
    for tag in tags:
        info = {"exchange": "", "routing_key": queue}
        properties = {"delivery_tag": tag, "delivery_info": info}
        client.lpush(queue, json.dumps({"body": "", "properties": properties}))


def take(
    client: redis.Redis,
    *queues: str,
    most: int = 10,
    width: int = 1,
    in_turn: int = 1,
    acks: tuple[str, ...] = (),
) -> list[tuple[int, str]]:
    """The queues' places and the tags of what a take has taken, as number 7."""
    keys = (*TAKE_KEYS, *queues)
    answer: Any = client.eval(TAKE, len(keys), *keys, most, LEASE, width, in_turn, 7, 60, *acks)
    tags = [json.loads(message)["properties"]["delivery_tag"] for message in answer[1::2]]
    return list(zip(answer[::2], tags, strict=True))


def close(client: redis.Redis) -> Any:
    """What the record held, when nothing more may be taken."""
    held: Any = client.eval(CLOSE_RECORD, 1, "record", 60)
    return json.loads(held) if held else None


def test_what_is_taken_is_registered_as_kombu_does(client: redis.Redis) -> None:
    put(client, "queue", "a", "b")
    message = client.lindex("queue", -1)
    assert take(client, "queue", most=1) == [(0, "a")]
    entry: Any = client.hget("unacked", "a")
    assert json.loads(entry) == [json.loads(str(message)), "", "queue"]
    score: Any = client.zscore("unacked_index", "a")
    assert time.time() - 10 < score < time.time() + 10
    assert client.llen("queue") == 1


def test_queues_are_taken_from_in_turn(client: redis.Redis) -> None:
    put(client, "one", "a", "b", "c")
    put(client, "other", "x")
    taken = take(client, "one", "other", width=2, most=3)
    assert taken == [(0, "a"), (1, "x"), (0, "b")]


def test_without_turns_a_queue_is_emptied_before_the_next(client: redis.Redis) -> None:
    put(client, "one", "a", "b")
    put(client, "other", "x")
    taken = take(client, "one", "other", width=2, in_turn=0)
    assert taken == [(0, "a"), (0, "b"), (1, "x")]


def test_a_higher_priority_goes_first(client: redis.Redis) -> None:
    put(client, "low", "a")
    put(client, "high", "x", "y")
    assert take(client, "high", "low") == [(0, "x"), (0, "y"), (1, "a")]


def test_what_is_no_message_is_taken_and_not_registered(client: redis.Redis) -> None:
    client.lpush("queue", '{"body": ""}')
    keys = (*TAKE_KEYS, "queue")
    answer: Any = client.eval(TAKE, len(keys), *keys, 10, LEASE, 1, 1, 7, 60)
    assert answer == [0, '{"body": ""}']
    assert client.exists("unacked", "record", KEYS[2]) == 0


INFO = {"exchange": "", "routing_key": "queue"}
OWN = {"delivery_tag": "a", "delivery_info": INFO}
FALSE = {"properties": {"delivery_tag": "no", "delivery_info": {}}}


@pytest.mark.parametrize(
    "message",
    [
        {"body": "x" * 10_000, "headers": {"own": FALSE}, "properties": OWN},
        {"properties": OWN, "headers": {"own": FALSE}, "body": ""},
        {"properties": OWN, "headers": FALSE},
        {"body": "", "properties": {**OWN, "correlation_id": "}{{"}},
        {"body": "", "properties": {**OWN, "correlation_id": '"properties": {'}},
        {"body": "", "properties": {**OWN, "own": FALSE}},
        {"body": "", "properties": {**OWN, "own": {"properties": {"b": "{{"}}}},
        {"body": "", "properties": {**OWN, "long": "x" * 3_000}},
    ],
)
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_a_message_is_registered_by_its_own_tag_whoever_has_written_it(
    client: redis.Redis, message: dict[str, Any], separators: tuple[str, str]
) -> None:
    text = json.dumps(message, separators=separators)
    client.lpush("queue", text)
    assert take(client, "queue") == [(0, "a")]
    assert client.hgetall("unacked") == {"a": f'[{text}, "", "queue"]'}


def test_the_record_tells_what_the_last_take_has_taken(client: redis.Redis) -> None:
    put(client, "queue", "a", "b")
    take(client, "queue")
    assert close(client) == [7, ["a", "b"]]
    assert close(client) == [7, ["a", "b"]], "an answer of this one can get lost as well"


def test_a_take_that_arrives_after_its_record_was_closed_takes_nothing(
    client: redis.Redis,
) -> None:
    put(client, "queue", "a")
    assert close(client) is None
    assert take(client, "queue") == []
    assert client.llen("queue") == 1


def test_what_is_acknowledged_is_removed_in_the_same_step(client: redis.Redis) -> None:
    put(client, "queue", "a", "b", "c")
    take(client, "queue", most=2)
    assert take(client, "queue", acks=("a", "b")) == [(0, "c")]
    assert client.hkeys("unacked") == ["c"]
    assert client.zrange("unacked_index", 0, -1) == ["c"]
    assert client.hkeys(KEYS[2]) == ["c"]


def test_acks_count_though_the_record_is_closed(client: redis.Redis) -> None:
    put(client, "queue", "a", "b")
    take(client, "queue", most=1)
    close(client)
    assert take(client, "queue", acks=("a",)) == []
    assert client.exists("unacked", "unacked_index", KEYS[2]) == 0


def test_nothing_is_taken_without_a_lease_that_lives(client: redis.Redis) -> None:
    put(client, "queue", "a", "b")
    keys = (*TAKE_KEYS, "queue")
    client.zadd("unacked.leases", {LEASE: time.time() - 1})
    assert client.eval(TAKE, len(keys), *keys, 1, LEASE, 1, 1, 7, 60) is None
    client.zrem("unacked.leases", LEASE)
    assert client.eval(TAKE, len(keys), *keys, 1, LEASE, 1, 1, 7, 60) is None
    client.zadd("unacked.leases", {LEASE: time.time() + 60})
    client.zadd("unacked.lapsed", {LEASE: time.time()})
    assert client.eval(TAKE, len(keys), *keys, 1, LEASE, 1, 1, 7, 60) is None
    assert client.llen("queue") == 2


def test_what_is_not_held_is_not_acknowledged(client: redis.Redis) -> None:
    """The tag is another node's by now: it stays the same for all who take the message."""
    client.hset("unacked", "a", "another's")
    client.zadd("unacked_index", {"a": 5.0})
    assert take(client, "queue", acks=("a",)) == []
    assert client.hkeys("unacked") == ["a"]


def test_a_late_node_acknowledges_what_nobody_has_touched(client: redis.Redis) -> None:
    put(client, "queue", "a", "b", "c")
    take(client, "queue")
    client.zadd("unacked.leases", {LEASE: time.time() - 1})
    client.zadd("unacked_index", {"b": 5.0})  # a stock worker has restored it, and has it now
    client.zrem("unacked_index", "c")  # and this one waits in its queue
    client.eval(ACKNOWLEDGE, len(KEYS), *KEYS, LEASE, "a", "b", "c")
    assert set(client.hkeys("unacked")) == {"b", "c"}
    assert client.zrange("unacked_index", 0, -1) == ["b"]


@pytest.mark.parametrize("count", [1, 2500])
def test_a_take_that_finds_too_little_has_the_queues_tracked(
    client: redis.Redis, redis_url: str, count: int
) -> None:
    queues = [f"queue-{number}" for number in range(count)]
    # Tracking belongs to one connection, and tells another; RESP2 publishes what it tells.
    node = redis.Redis.from_url(
        redis_url, decode_responses=True, protocol=2, single_connection_client=True
    )
    teller = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    with node, teller:
        told: Any = teller.connection_pool.get_connection()
        tracking: Any = node
        told.send_command("CLIENT", "ID")
        redirect = ("REDIRECT", told.read_response(), "NOLOOP")
        told.send_command("SUBSCRIBE", "__redis__:invalidate")
        told.read_response()
        tracking.execute_command("CLIENT", "TRACKING", "ON", *redirect)
        assert take(node, *queues, width=count) == []
        put(client, queues[-1], "a")
        assert told.can_read(timeout=5)
        assert told.read_response() == ["message", "__redis__:invalidate", [queues[-1]]]
        told.disconnect()
