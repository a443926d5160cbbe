"""What RabbitMQ's refusals make of a queue's size."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import AccessRefused, NotFound

from celery_concurrent.autoscaler.sizes import AmqpSizes

NO_QUEUE = "NOT_FOUND - no queue 'q' in vhost '/'"
OUT_OF_REACH = [
    "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible",
    "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor",
]


def sizes(answer: str, make: Callable[[Any, str], None]) -> AmqpSizes:
    """A reader that is refused every queue, with these words."""

    def wait(*_: Any, **__: Any) -> Any:
        raise NotFound(answer)

    transport = SimpleNamespace(
        sock=SimpleNamespace(settimeout=lambda _: None), write=lambda _: None
    )
    channel = SimpleNamespace(channel_id=1, wait=wait)
    connection = SimpleNamespace(
        connection=SimpleNamespace(transport=transport), channel=lambda: channel
    )
    return AmqpSizes(connection, 1.0, make)


@pytest.mark.parametrize("answer", OUT_OF_REACH)
def test_a_queue_that_is_out_of_reach_is_unknown_also_while_it_is_left_in_peace(
    answer: str,
) -> None:
    tried: list[str] = []

    def make(_channel: Any, queue: str) -> None:
        tried.append(queue)
        raise NotFound(answer)

    reader = sizes(answer, make)
    assert [reader.read(["q"]) for _ in range(2)] == [{"q": None}] * 2
    assert tried == ["q"]


def test_a_queue_that_does_not_exist_and_may_not_be_made_is_empty() -> None:
    def make(_channel: Any, queue: str) -> None:
        raise AccessRefused("ACCESS_REFUSED - configure access to queue 'q' refused")

    reader = sizes(NO_QUEUE, make)
    assert [reader.read(["q"]) for _ in range(2)] == [{"q": 0}] * 2
