"""A reaper that is no node, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
import redis
from celery import Celery

from celery_concurrent.redis import leases as keeping
from celery_concurrent.redis.holdings import Holdings
from celery_concurrent.redis.reaping import Reaper
from tests.services.waiting import wait_for


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's database."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def reaper(redis_url: str) -> Iterator[Reaper]:
    """A running one, which renews four times a second."""
    app = Celery(broker=redis_url)
    app.conf.concurrent_redis_lease = 1.0
    reaper = Reaper(app, "autoscaler")
    reaper.start()
    yield reaper
    reaper.close()
    app.close()


def living(client: redis.Redis, *, besides: str = "") -> str:
    """The lease that lives, as soon as there is one."""

    def look() -> list[str]:
        found: Any = client.zrangebyscore("unacked.leases", time.time(), "inf")
        return [lease for lease in found if lease != besides]

    return wait_for(look, what="a lease")[0]


def renews() -> bool:
    """Whether a thread of a reaper's runs."""
    return any(thread.name.startswith("lease-") for thread in threading.enumerate())


def test_a_reaper_leaves_nothing_behind(client: redis.Redis, reaper: Reaper) -> None:
    assert living(client).startswith("autoscaler.")
    assert renews()
    reaper.close()
    assert client.keys("*") == []


def test_a_reaper_that_was_paused_goes_on_under_another_lease(
    client: redis.Redis, reaper: Reaper, redis_url: str
) -> None:
    lease = living(client)
    with kombu.Connection(redis_url) as connection:
        holdings = Holdings(connection.channel())

        def found_lapsed() -> bool:
            client.zadd("unacked.leases", {lease: 1.0}, xx=True)
            list(holdings.put_back_lapsed())
            return client.zscore("unacked.lapsed", lease) is not None

        wait_for(found_lapsed, what="the lease lapsed before it was renewed")
    assert living(client, besides=lease) != lease


def test_a_lease_that_redis_may_have_forgotten_to_be_lost_is_lost(
    client: redis.Redis, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = living(client)
    # As though it had been paused for more than a day, after which nobody remembers.
    monkeypatch.setattr(keeping, "REMEMBERED", -10.0)
    client.delete("unacked.leases")
    assert living(client, besides=lease) != lease


def test_a_lease_that_redis_has_lost_with_its_data_is_registered_anew(
    client: redis.Redis, reaper: Reaper
) -> None:
    lease = living(client)
    client.flushdb()
    assert living(client) == lease


@pytest.mark.parametrize("conf", [{"broker_url": "memory://"}, {"concurrent_batching": False}])
def test_where_there_are_no_leases_nothing_is_kept(redis_url: str, conf: dict[str, Any]) -> None:
    app = Celery(broker=redis_url)
    app.conf.update(conf)
    reaper = Reaper(app, "autoscaler")
    reaper.start()
    assert not renews()
    reaper.close()
    app.close()
