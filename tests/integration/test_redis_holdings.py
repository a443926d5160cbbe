"""The steps that renew leases and put back what lapsed ones held, run by a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
import redis

from celery_concurrent.redis import holdings as steps
from celery_concurrent.redis.holdings import Holdings
from celery_concurrent.redis.records import LostTake, Record
from celery_concurrent.redis.scripts import TAKE
from tests.services.redis import RedisServer

#: One of the lists of a queue with priorities, as kombu names it.
LOW = "queue\x06\x169"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's database."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def holdings(redis_url: str) -> Iterator[Holdings]:
    """On a channel of their own."""
    with kombu.Connection(redis_url) as connection:
        yield Holdings(connection.channel())


@pytest.fixture
def others(redis_url: str) -> Iterator[Holdings]:
    """The same of another node, which has a connection of its own."""
    with kombu.Connection(redis_url) as connection:
        yield Holdings(connection.channel())


def put(client: redis.Redis, queue: str, *tags: str) -> None:
    """Put messages as kombu does; an empty list and a large number must survive."""
    for tag in tags:
        info = {"exchange": "topics", "routing_key": "shop.a"}
        message = {
            "body": "",
            "headers": {"id": tag, "stamps": [], "n": 12345678901234567, "none": None},
            "properties": {"delivery_tag": tag, "delivery_info": info},
        }
        client.lpush(queue, json.dumps(message))


def take(client: redis.Redis, holdings: Holdings, lease: str, *queues: str, most: int = 9) -> None:
    """Take as a node does."""
    keys = (*holdings.keys(lease), "record", *queues)
    answer: Any = client.eval(TAKE, len(keys), *keys, most, lease, 1, 1, 1, 60)
    assert answer is not None


def tags_in(client: redis.Redis, queue: str) -> list[str]:
    """In the order in which they will be taken."""
    messages: Any = client.lrange(queue, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(messages)]


def lapse(client: redis.Redis, lease: str) -> None:
    """The lease has run out."""
    client.zadd("unacked.leases", {lease: time.time() - 1.0}, xx=True)


def put_back_lapsed(holdings: Holdings) -> int:
    return sum(holdings.put_back_lapsed())


def test_a_lease_lives_from_its_first_renewal(client: redis.Redis, holdings: Holdings) -> None:
    assert holdings.renew("a", 10.0) == ("new", 0)
    assert holdings.renew("a", 10.0) == ("live", 0)
    score: Any = client.zscore("unacked.leases", "a")
    assert time.time() + 5 < score < time.time() + 15


def test_a_lapsed_lease_puts_back_what_it_held_as_it_was_taken(
    client: redis.Redis, holdings: Holdings
) -> None:
    put(client, "queue", "a", "b", "c", "later")
    put(client, LOW, "x")
    before = client.lindex("queue", -1)
    holdings.renew("dead", 10.0)
    take(client, holdings, "dead", "queue", most=3)
    take(client, holdings, "dead", LOW)
    # What was taken first stays the first, though its score was renewed and theirs was not.
    holdings.refresh("dead", ["a"])
    lapse(client, "dead")
    assert holdings.renew("alive", 10.0) == ("new", 1)
    assert put_back_lapsed(holdings) == 4
    assert tags_in(client, "queue") == ["a", "b", "c", "later"]
    assert tags_in(client, LOW) == ["x"]
    expected = json.loads(str(before))
    expected["headers"]["redelivered"] = True
    expected["properties"]["delivery_info"]["redelivered"] = True
    assert json.loads(str(client.lindex("queue", -1))) == expected
    assert client.exists("unacked", "unacked_index", "unacked.held.dead") == 0


def test_a_lost_lease_stays_lost(client: redis.Redis, holdings: Holdings) -> None:
    put(client, "queue", "a")
    holdings.renew("dead", 10.0)
    take(client, holdings, "dead", "queue")
    lapse(client, "dead")
    assert put_back_lapsed(holdings) == 1
    assert put_back_lapsed(holdings) == 0
    assert holdings.renew("dead", 10.0) == ("lost", 0)
    assert holdings.renew("dead", 10.0, looked_through=True) == ("lost", 0)


def test_an_expired_record_of_lost_leases_is_thrown_away(
    client: redis.Redis, holdings: Holdings
) -> None:
    client.zadd("unacked.lapsed", {"old": time.time() - steps.REMEMBERED - 1.0, "new": time.time()})
    assert put_back_lapsed(holdings) == 0
    assert client.zrange("unacked.lapsed", 0, -1) == ["new"]


def test_a_late_lease_is_renewed_only_when_it_was_looked_through(
    client: redis.Redis, holdings: Holdings
) -> None:
    put(client, "queue", "a")
    holdings.renew("late", 10.0)
    take(client, holdings, "late", "queue")
    lapse(client, "late")
    assert holdings.renew("late", 10.0) == ("late", 0)
    assert holdings.look_through("late")
    assert holdings.renew("late", 10.0, looked_through=True) == ("late", 0)
    assert holdings.renew("late", 10.0) == ("live", 0)


def test_a_late_lease_of_which_a_stock_worker_has_something_is_lost(
    client: redis.Redis, holdings: Holdings
) -> None:
    put(client, "queue", *(str(number) for number in range(1200)))
    holdings.renew("late", 10.0)
    for _ in range(12):
        take(client, holdings, "late", "queue", most=100)
    lapse(client, "late")
    client.zadd("unacked_index", {"777": time.time()})
    assert not holdings.look_through("late")
    assert holdings.renew("late", 10.0) == ("lost", 0)
    assert put_back_lapsed(holdings) == 1199
    assert client.hkeys("unacked") == ["777"], "the stock worker's"


def test_two_that_reap_at_once_put_back_once(
    client: redis.Redis, holdings: Holdings, others: Holdings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CLAIM", 0.0)  # else the second finds nothing to do
    expected = [str(number) for number in range(1500)]
    put(client, "queue", *expected)
    holdings.renew("dead", 10.0)
    for _ in range(15):
        take(client, holdings, "dead", "queue", most=100)
    lapse(client, "dead")
    counts: list[int] = []
    start = threading.Barrier(2)

    def reap(own: Holdings) -> None:
        start.wait()
        counts.append(put_back_lapsed(own))

    threads = [threading.Thread(target=reap, args=(own,)) for own in (holdings, others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 1500
    assert tags_in(client, "queue") == expected


def test_what_a_stock_worker_restores_meanwhile_is_put_back_once(
    client: redis.Redis, holdings: Holdings, redis_url: str
) -> None:
    """Both are one step, and each finds that there is nothing left when it comes second."""
    put(client, "queue", "a", "b")
    holdings.renew("dead", 10.0)
    take(client, holdings, "dead", "queue")
    client.hset("unacked", "a", json.dumps([json.loads(entry_of(client, "a"))[0], "", "queue"]))
    with kombu.Connection(redis_url) as connection:
        connection.channel().qos.restore_by_tag("a")
    lapse(client, "dead")
    assert put_back_lapsed(holdings) == 1
    assert sorted(tags_in(client, "queue")) == ["a", "b"]


def test_a_claim_keeps_others_from_doing_the_same_work(
    client: redis.Redis, holdings: Holdings, others: Holdings
) -> None:
    put(client, "queue", *(str(number) for number in range(150)))
    holdings.renew("dead", 10.0)
    for _ in range(2):
        take(client, holdings, "dead", "queue", most=100)
    lapse(client, "dead")
    begun = holdings.put_back_lapsed()
    assert next(begun) == 100
    assert put_back_lapsed(others) == 0
    client.zadd("unacked.leases", {"dead": time.time() - 1.0})  # it died, too
    assert put_back_lapsed(others) == 50


def test_what_a_node_gives_back_itself_goes_where_it_says(
    client: redis.Redis, holdings: Holdings
) -> None:
    put(client, "queue", "a", "b", "c", "d")
    holdings.renew("node", 10.0)
    take(client, holdings, "node", "queue", most=3)
    assert holdings.put_back("node", ["a"], at_head=False) == 1
    assert holdings.put_back("node", ["b", "c"]) == 2
    assert tags_in(client, "queue") == ["b", "c", "d", "a"]
    assert holdings.put_back("node", ["b", "c"]) == 0, "they are not held any more"


def test_a_lease_that_is_left_gives_back_at_once(client: redis.Redis, holdings: Holdings) -> None:
    put(client, "queue", "a")
    for lease in ("empty", "full"):
        holdings.renew(lease, 10.0)
    take(client, holdings, "full", "queue")
    holdings.leave("empty")
    holdings.leave("full")
    assert client.zrange("unacked.leases", 0, -1) == ["full"]
    assert put_back_lapsed(holdings) == 1


def entry_of(client: redis.Redis, tag: str) -> str:
    entry: Any = client.hget("unacked", tag)
    return str(entry)


@pytest.mark.parametrize(
    "odd",
    [
        b'"price": {"__type__": "money", "__value__": 7}',  # a type that is not registered here
        b'"note": "a\tb"',
        b'"note": "\xff"',
        b'"note": nothing of JSON',
    ],
)
def test_what_cannot_be_read_goes_back_as_it_is_beside_the_others(
    client: redis.Redis, holdings: Holdings, redis_url: str, odd: bytes
) -> None:
    put(client, "queue", "a")
    written = (
        b'{"body": "", "headers": {"id": "odd", ' + odd + b'}, "properties": {"delivery_tag": '
        b'"odd", "delivery_info": {"exchange": "", "routing_key": "queue"}}}'
    )
    client.lpush("queue", written)
    put(client, "queue", "b")
    holdings.renew("dead", 10.0)
    with redis.Redis.from_url(redis_url) as plain:
        take(plain, holdings, "dead", "queue")
        lapse(client, "dead")
        assert put_back_lapsed(holdings) == 3
        back: Any = plain.lrange("queue", 0, -1)
    marked = json.loads(back[1]) if b"redelivered" in back[1] else None
    assert back[1] == written or (marked and marked["headers"]["redelivered"])
    assert odd.replace(b"\xff", b"") in back[1].replace(b"\xff", b"")
    assert [b'"a"' in back[2], b'"b"' in back[0]] == [True, True]


def test_a_full_memory_takes_no_lease_away(private_redis: RedisServer) -> None:
    with kombu.Connection(private_redis.url()) as connection, private_redis.client() as full:
        own, lost = Holdings(connection.channel()), Record("unacked").key
        client = redis.Redis.from_url(private_redis.url(), decode_responses=True)
        put(client, "queue", "a", "b")
        own.renew("mine", 10.0)
        full.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            full.set("anything", 1)
        take(client, own, "mine", "queue")
        own.refresh("mine", ["a"])
        assert LostTake(record=lost, number=1).close(full, 60) == []
        assert own.renew("mine", 10.0) == ("live", 0)
        assert own.look_through("mine")
        own.put_back("mine", ["b"])
        own.acknowledge("mine", ["a"])
        own.leave("mine")
        assert tags_in(client, "queue") == ["b"]
        client.close()
