"""A node's channel on a real Redis: when it asks for inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub

from celery_concurrent.pool.threads import Threads
from celery_concurrent.redis.channel import AtomicChannel, Stage
from celery_concurrent.redis.fetching import RedisFetching
from celery_concurrent.redis.leases import Leases, quickly
from celery_concurrent.redis.preparing import prepare
from celery_concurrent.redis.wakeups import Wakeups
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """What a consumer without a hub fetches with."""

    fetching: RedisFetching
    channel: AtomicChannel
    wakeups: Wakeups
    connection: Any
    arrived: list[Any]

    def hear(self) -> None:
        """Read what Redis tells of changes, and nothing else."""
        listener = self.wakeups.subclient.connection
        wait_for(lambda: listener.can_read(timeout=0.05))
        self.wakeups._receive()

    def drain(self) -> None:
        """A turn of the consumer."""
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.05)

    def is_resting(self) -> bool:
        """Whether, after a turn, it waits for a change."""
        self.drain()
        return self.channel._stage is Stage.WAITING

    def has(self, number: int) -> bool:
        """Whether so many messages have arrived after a turn."""
        self.drain()
        return len(self.arrived) == number

    def stage(self) -> Stage:
        """What the channel does."""
        return self.channel._stage


@pytest.fixture
def fetcher(redis_url: str) -> Iterator[Fetcher]:
    threads = Threads("lease", most=1)
    leases: list[Leases] = []

    def make_leases(held: Any) -> Leases:
        leases.append(Leases("node", 10.0, thread=threads, held=held))
        return leases[0]

    with Connection(redis_url) as connection:
        fetching = RedisFetching(make_leases)
        fetching.connect(connection.transport, has_hub=False)
        wait_for(lambda: leases[0].current.is_fresh)
        channel = fetching.channel(connection.transport, ["queue"])
        wakeups = fetching._wakeups
        assert channel is not None
        assert wakeups is not None
        channel.basic_qos(0, 100, False)
        arrived: list[Any] = []
        Consumer(channel, [Queue("queue")], on_message=arrived.append).consume()
        fetcher = Fetcher(
            fetching=fetching,
            channel=channel,
            wakeups=wakeups,
            connection=connection,
            arrived=arrived,
        )
        wait_for(fetcher.is_resting)
        yield fetcher
        fetching.close()
    threads.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with Connection(redis_url) as connection:
        yield connection.SimpleQueue("queue")


def test_a_take_goes_out_as_soon_as_a_change_is_told(fetcher: Fetcher, client: Any) -> None:
    client.put("hello")
    fetcher.hear()
    assert fetcher.stage() is Stage.TAKING
    wait_for(lambda: fetcher.has(1))
    assert [message.payload for message in fetcher.arrived] == ["hello"]


def test_without_a_free_slot_nothing_is_asked_for(fetcher: Fetcher, client: Any) -> None:
    fetcher.channel.qos.can_consume = lambda: False
    client.put("hello")
    fetcher.hear()
    assert fetcher.stage() is Stage.IDLE
    fetcher.fetching.take()
    assert fetcher.stage() is Stage.IDLE
    del fetcher.channel.qos.can_consume
    fetcher.fetching.take()
    assert fetcher.stage() is Stage.TAKING


def test_a_change_that_is_told_during_a_take_is_not_forgotten(
    fetcher: Fetcher, client: Any
) -> None:
    for number in range(20):
        client.put(number)
    wait_for(lambda: fetcher.has(20))
    assert sorted(message.payload for message in fetcher.arrived) == list(range(20))


def test_a_closed_channel_asks_for_nothing(fetcher: Fetcher) -> None:
    fetcher.channel.close()
    fetcher.fetching.take()
    assert fetcher.stage() is not Stage.TAKING


def test_acks_that_a_take_has_taken_along_are_not_sent_again(
    fetcher: Fetcher, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put("hello")
    wait_for(lambda: fetcher.has(1))
    flushed: list[str] = []
    monkeypatch.setattr(fetcher.channel, "flush_acks", lambda: flushed.append("again"))
    fetcher.arrived[0].ack()
    fetcher.channel.wake(None)
    fetcher.fetching.take()
    assert fetcher.stage() is Stage.TAKING
    fetcher.fetching.flush_acks_between_takes(most=0)
    assert flushed == []
    fetcher.fetching._ledger.add("another")
    fetcher.fetching.flush_acks_between_takes(most=0)
    assert flushed == ["again"]


def test_a_message_of_a_queue_that_was_cancelled_meanwhile_goes_back_and_is_held_no_more(
    fetcher: Fetcher, client: Any, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as server:
        for number in range(3):
            client.put(number)
        before = [json.loads(each)["body"] for each in server.lrange("queue", 0, -1)]
        fetcher.channel.wake(None)
        fetcher.fetching.take()
        assert fetcher.stage() is Stage.TAKING
        fetcher.connection.transport._callbacks.pop("queue")
        wait_for(lambda: fetcher.has(0) and server.llen("queue") == 3)
        assert [json.loads(each)["body"] for each in server.lrange("queue", 0, -1)] == before
        assert not server.exists("unacked", "unacked_index")
        assert server.keys("unacked.held.*") == []
    assert fetcher.arrived == []


def test_what_could_not_go_back_goes_to_the_next_connection(
    fetcher: Fetcher, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise OSError("the connection is lost")

    client.put("hello")
    fetcher.hear()
    fetcher.connection.transport._callbacks.pop("queue")
    monkeypatch.setattr(fetcher.channel, "put_back", fail)
    with pytest.raises(OSError, match="lost"):
        wait_for(lambda: fetcher.connection.drain_events(timeout=1))
    messages, _ = fetcher.channel.hand_over()
    assert list(messages.values()) == [None]


@pytest.mark.parametrize(
    "odd",
    [
        {"body": "a"},  # no base64
        {"body": 7},
        {"headers": [1]},
        {"properties": {"body_encoding": "rot13"}},
        {"properties": {"body_encoding": 7}},
    ],
    ids=str,
)
def test_what_kombu_can_make_no_message_of_is_dropped_for_good(
    fetcher: Fetcher, client: Any, redis_url: str, odd: dict[str, Any]
) -> None:
    with redis.Redis.from_url(redis_url) as server:
        client.put("hello")
        found = server.rpop("queue")
        assert isinstance(found, bytes)
        message = json.loads(found)
        properties = {**message.pop("properties"), **odd.pop("properties", {})}
        server.lpush("queue", json.dumps({**message, **odd, "properties": properties}))
        client.put("next")
        fetcher.channel.wake(None)
        wait_for(lambda: fetcher.has(1))
        assert fetcher.arrived[0].payload == "next"
        fetcher.fetching.flush_acks()
        assert server.hlen("unacked") == 1


def test_a_tag_within_a_message_settles_no_other(
    fetcher: Fetcher, client: Any, redis_url: str
) -> None:
    client.put("hello")
    wait_for(lambda: fetcher.has(1))
    with redis.Redis.from_url(redis_url) as server:
        tag = fetcher.arrived[0].delivery_tag
        server.lpush("queue", json.dumps({"original": {"delivery_tag": tag}}))
        client.put("next")
        wait_for(lambda: fetcher.has(2))
        fetcher.fetching.flush_acks()
        assert server.hexists("unacked", tag)


def test_without_emulated_acks_inputs_are_taken_in_kombus_own_way(redis_url: str) -> None:
    threads = Threads("lease", most=1)
    made = Leases("node", 10.0, thread=threads)
    with Connection(redis_url, transport_options={"ack_emulation": False}) as connection:
        fetching = RedisFetching(lambda _: made)
        fetching.connect(connection.transport, has_hub=False)
        assert fetching.channel(connection.transport, ["queue"]) is None
        assert fetching.hold() is None
        assert len(connection.transport.channels) == 0
    threads.close()


def test_a_lease_follows_the_consumer_to_another_server(
    redis_url: str, private_redis: RedisServer
) -> None:
    threads = Threads("lease", most=1)
    leases = Leases("node", 1.0, thread=threads)
    with redis.Redis.from_url(redis_url) as first, private_redis.client() as second:
        for url, server in ((redis_url, first), (private_redis.url(), second)):
            with Connection(url) as connection:
                leases.start(partial(quickly, connection, alternates=[]))
                leases.ask()
                wait_for(lambda: server.zscore("unacked.leases", leases.current.id))  # noqa: B023
    leases.close()
    threads.close()


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "kombus"])
def test_what_living_nodes_hold_is_not_restored_as_a_consumer_connects(
    redis_url: str, prepared: bool
) -> None:
    """Kombu does, before the channel is there that asks the leases."""
    options = {"retry_on_timeout": True}
    with (
        redis.Redis.from_url(redis_url) as server,
        Connection(redis_url, transport_options=options) as connection,
    ):
        server.hset("unacked", "tag", '[{"body": "", "properties": {}}, "", "queue"]')
        server.zadd("unacked_index", {"tag": 1.0})
        connection.connect()
        if prepared:
            prepare(connection)
        hub = Hub()
        connection.transport.register_with_event_loop(connection.connection, hub)
        assert connection.transport.cycle.poller is hub.poller
        assert bool(server.exists("unacked")) is prepared
        # A connection that waits must not come back by itself.
        assert connection.default_channel  # which does not wait
        params = connection.channel()._connparams(asynchronous=True)
        assert params["retry_on_timeout"] is not prepared
        hub.close()
