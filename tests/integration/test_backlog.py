"""Reading backlogs from real brokers: unknown is not zero, and thousands of queues are cheap."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from kombu.transport.redis import PRIORITY_STEPS

from celery_concurrent.autoscaler import sizes
from celery_concurrent.autoscaler.backlog import POLL, Backlog
from tests.services.project import Broker, apart
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

MakeApp = Callable[..., Any]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    with apart():

        def make(url: str, **conf: Any) -> Any:
            app = Celery("backlog", broker=url, set_as_current=False)
            app.conf.update(conf)
            return app

        yield make


@pytest.fixture
def reading() -> Iterator[Callable[..., Backlog]]:
    made: list[Backlog] = []

    def make(app: Any, **options: Any) -> Backlog:
        made.append(Backlog(app, **options))
        return made[-1]

    yield make
    for backlog in made:
        backlog.close()


def publish(app: Any, queue: str, count: int = 1, **options: Any) -> None:
    with app.connection_for_write() as connection:
        producer = kombu.Producer(connection)
        for _ in range(count):
            producer.publish({}, routing_key=queue, declare=[kombu.Queue(queue)], **options)


def test_each_queue_has_its_own_backlog(
    make_app: MakeApp, reading: Callable[..., Backlog], broker: Broker
) -> None:
    app = make_app(broker.url)
    publish(app, "a", 3)
    publish(app, "b", 1)
    backlog = reading(app, timeout=5.0)
    wait_for(
        lambda: backlog.read(["a", "b", "none"]) == {"a": 3, "b": 1, "none": 0},
        what=lambda: str(backlog.read(["a", "b", "none"])),
    )
    assert backlog.read(["none", "a"]) == {"none": 0, "a": 3}
    assert backlog.read([]) == {}


def test_priorities_and_a_key_prefix_are_counted_as_kombu_names_them(
    make_app: MakeApp, reading: Callable[..., Backlog], redis_url: str
) -> None:
    options = {"global_keyprefix": "shop:", "priority_steps": [0, 2, 5], "sep": ":"}
    app = make_app(redis_url, broker_transport_options=options)
    for priority in (0, 2, 5, 9):
        publish(app, "a", 2, priority=priority)
    other = make_app(redis_url)
    assert reading(app, timeout=5.0).read(["a"]) == {"a": 8}
    assert reading(other, timeout=5.0).read(["a"]) == {"a": 0}


def test_without_rights_to_scripts_lengths_are_asked_one_by_one(
    make_app: MakeApp, reading: Callable[..., Backlog], private_redis: RedisServer
) -> None:
    with private_redis.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", "-@scripting"
        )
    url = private_redis.url().replace("redis://", "redis://poor:pw@")
    app = make_app(url, broker_transport_options={"global_keyprefix": "shop:"})
    publish(app, "a", 2, priority=9)
    backlog = reading(app, timeout=5.0)
    assert [backlog.read(["a", "b"]) for _ in range(2)] == [{"a": 2, "b": 0}] * 2


def test_a_reading_survives_flushed_scripts(
    make_app: MakeApp, reading: Callable[..., Backlog], private_redis: RedisServer
) -> None:
    app = make_app(private_redis.url())
    publish(app, "a", 2)
    backlog = reading(app, timeout=5.0)
    assert backlog.read(["a"]) == {"a": 2}
    with private_redis.client() as client:
        client.script_flush()
        assert backlog.read(["a"]) == {"a": 2}
        asked: int = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert backlog.read(["a"]) == {"a": 2}
        # By the script again, which is what keeps many queues cheap.
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == asked + 1


def test_a_broker_that_is_gone_leaves_the_backlog_unknown_until_it_is_back(
    make_app: MakeApp, reading: Callable[..., Backlog], private_redis: RedisServer
) -> None:
    app = make_app(private_redis.url())
    publish(app, "a", 2)
    backlog = reading(app, timeout=1.0)
    assert backlog.read(["a"]) == {"a": 2}
    private_redis.kill()
    for _ in range(3):
        assert backlog.read(["a"]) == {"a": None}
    private_redis.start()
    wait_for(lambda: backlog.read(["a"]) == {"a": 2}, 20.0, what="the backlog")


def test_a_rabbitmq_that_is_gone_leaves_the_backlog_unknown_until_it_is_back(
    make_app: MakeApp, reading: Callable[..., Backlog], private_rabbitmq: RabbitMQServer
) -> None:
    app = make_app(private_rabbitmq.url())
    publish(app, "a", 2, delivery_mode=2)
    backlog = reading(app, timeout=2.0)
    wait_for(lambda: backlog.read(["a"]) == {"a": 2}, what="the backlog")
    private_rabbitmq.stop()
    assert backlog.read(["a"]) == {"a": None}
    private_rabbitmq.start()
    wait_for(lambda: backlog.read(["a"]) == {"a": 2}, 20.0, what="the backlog")


def states_of_threads(pid: int) -> set[str]:
    """As Linux tells them; T is stopped."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_broker_that_hangs_costs_the_timeout_and_is_unknown(
    make_app: MakeApp,
    reading: Callable[..., Backlog],
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    server = request.getfixturevalue(f"private_{kind}")
    app = make_app(server.url())
    publish(app, "a", 1)
    backlog = reading(app, timeout=0.5)
    wait_for(lambda: backlog.read(["a"]) == {"a": 1}, what="the backlog")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Its threads stop one after another: on a busy machine one may still answer.
        wait_for(lambda: states_of_threads(server.pid) == {"T"}, what="a server that stands still")
        for _ in range(2):
            asked = time.monotonic()
            assert backlog.read(["a"]) == {"a": None}
            assert time.monotonic() - asked < 1.5
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_for(lambda: backlog.read(["a"]) == {"a": 1}, 20.0, what="the backlog")


def test_the_memory_transport_tells_too(make_app: MakeApp, reading: Callable[..., Backlog]) -> None:
    app = make_app("memory://")
    publish(app, "in-memory", 2)
    assert reading(app).read(["in-memory", "none"]) == {"in-memory": 2, "none": 0}


@pytest.mark.rabbitmq
def test_queues_that_do_not_exist_are_made_as_nodes_make_them(
    make_app: MakeApp, reading: Callable[..., Backlog], rabbitmq_url: str
) -> None:
    app = make_app(rabbitmq_url, task_queue_max_priority=5)
    publish(app, "there", 2)
    asked = ["a", "there", "b", "c"]
    backlog = reading(app, timeout=5.0)
    wait_for(lambda: backlog.read(asked)["there"] == 2, what="the backlog")
    assert backlog.read(asked) == {"a": 0, "there": 2, "b": 0, "c": 0}
    with app.connection_for_write() as connection:
        channel = connection.channel()
        for name in "abc":
            channel.queue_declare(name, passive=True)
            # With other arguments than those it was made with, RabbitMQ would refuse.
            app.amqp.queues[name](channel).declare()


@pytest.mark.rabbitmq
def test_a_queue_that_cannot_be_made_counts_as_empty_and_is_left_in_peace(
    make_app: MakeApp, rabbitmq_url: str
) -> None:
    app = make_app(rabbitmq_url)
    publish(app, "there", 2)
    tried: list[str] = []

    def refuse(_channel: Any, queue: str) -> None:
        tried.append(queue)
        raise KeyError(queue)

    now = 0.0
    connection = app.connection_for_read()
    connection.connect()
    reader = sizes.AmqpSizes(connection, 5.0, refuse, clock=lambda: now)
    asked = ["none", "there", "nor-this"]
    try:
        wait_for(lambda: reader.read(asked)["there"] == 2, what="the backlog")
        assert reader.read(asked) == {"none": 0, "there": 2, "nor-this": 0}
        assert tried == ["none", "nor-this"]
        now = 60.0
        reader.read(asked)
        assert tried == ["none", "nor-this"] * 2
    finally:
        reader.close()


@pytest.mark.rabbitmq
def test_more_queues_than_are_asked_at_once_are_all_read(
    make_app: MakeApp,
    reading: Callable[..., Backlog],
    rabbitmq_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizes, "_AT_ONCE", 10)
    app = make_app(rabbitmq_url)
    queues = [f"many-{number}" for number in range(25)]
    for place in (0, 9, 10, 24):
        publish(app, queues[place], 1)
    backlog = reading(app, timeout=10.0)
    wait_for(lambda: sum(filter(None, backlog.read(queues).values())) == 4, what="the backlog")
    found = backlog.read(queues)
    assert [place for place, queue in enumerate(queues) if found[queue]] == [0, 9, 10, 24]
    assert backlog.pause == POLL
    # So that a thousand cost RabbitMQ a tenth of a core at the most, they are read less often.
    backlog.read(queues * 40)
    assert backlog.pause == pytest.approx(0.4)


@pytest.mark.timing
@pytest.mark.rabbitmq
def test_an_arrival_in_one_of_a_hundred_queues_of_rabbitmq_is_noticed_within_100_ms(
    make_app: MakeApp, reading: Callable[..., Backlog], rabbitmq_url: str
) -> None:
    app = make_app(rabbitmq_url)
    queues = [f"queue-{number}" for number in range(100)]
    backlog = reading(app, timeout=10.0)
    backlog.read(queues)
    delays = []
    with app.connection_for_write() as connection:
        producer = kombu.Producer(connection)
        for queue in queues[::5]:
            producer.publish({}, routing_key=queue)
            arrived = time.monotonic()
            time.sleep(random.uniform(0.0, POLL))  # somewhere between two readings
            while backlog.read(queues)[queue] != 1:
                time.sleep(backlog.pause)
            delays.append(time.monotonic() - arrived)
    assert max(delays) < 0.1, f"median {statistics.median(delays):.4f} max {max(delays):.4f}"


@pytest.mark.timing
def test_an_arrival_in_one_of_a_thousand_queues_of_redis_is_noticed_within_100_ms(
    make_app: MakeApp, reading: Callable[..., Backlog], redis_url: str
) -> None:
    app = make_app(redis_url)
    queues = [f"queue-{number}" for number in range(1000)]
    backlog = reading(app, timeout=2.0)
    delays = []
    with redis.Redis.from_url(redis_url) as client:
        for queue in queues[::50]:
            assert set(backlog.read(queues).values()) == {0}
            client.rpush(queue, "x")
            arrived = time.monotonic()
            time.sleep(random.uniform(0.0, POLL))  # somewhere between two readings
            while backlog.read(queues)[queue] != 1:
                time.sleep(POLL)
            delays.append(time.monotonic() - arrived)
            client.delete(queue)
    assert max(delays) < 0.1, f"median {statistics.median(delays):.4f} max {max(delays):.4f}"


def test_of_a_thousand_queues_only_those_near_one_with_inputs_are_looked_at_one_by_one(
    make_app: MakeApp, reading: Callable[..., Backlog], private_redis: RedisServer
) -> None:
    """``python -m benchmarks fleet --rows idle`` measures what that costs."""
    queues = [f"queue-{number}" for number in range(1000)]
    backlog = reading(make_app(private_redis.url()), timeout=2.0)
    with private_redis.client() as client:

        def calls(*commands: str) -> list[int]:
            """What the commands were called by one reading."""
            client.config_resetstat()
            backlog.read(queues)
            told = client.info("commandstats")
            return [told.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands]

        backlog.read(queues)
        keys = len(queues) * len(PRIORITY_STEPS)
        assert calls("evalsha", "exists", "llen") == [1, keys / 100, 0]
        client.rpush(queues[500], "x")
        assert calls("evalsha", "exists", "llen") == [1, keys / 100, 100]
