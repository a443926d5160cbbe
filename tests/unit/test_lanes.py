"""What a lane tells RabbitMQ, when inputs arrive in the midst of telling it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_concurrent.worker.lanes import LaneConsumer, Lanes
from celery_concurrent.worker.plan import Lane

LANE = Lane(queues=("fetch",), groups=frozenset({"fetch"}))


class Channel:
    """An AMQP channel: while it waits for an answer, messages that arrive are handled."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.arrives: Callable[[], None] | None = None

    def basic_qos(self, size: int, count: int, apply_global: bool) -> None:
        self.counts.append(count)
        arrives, self.arrives = self.arrives, None
        if arrives is not None:
            arrives()


class Consumer:
    """A kombu consumer of one queue, which is counted like the channel's tags."""

    tag_prefix = None
    _receive_callback = None

    def __init__(self) -> None:
        self.name = "fetch"
        self.tags: list[str] = []

    @property
    def queues(self) -> list[Any]:
        return [self]

    def consume(self, tag: str, callback: Any) -> None:
        assert tag not in self.tags
        self.tags.append(tag)


def lane_of(channel: Channel, consumer: Consumer, *, apply_global: bool) -> LaneConsumer:
    return LaneConsumer(
        LANE,
        channel,
        lambda channel, queues: consumer,
        [],
        limit=lambda lane: 4,
        eta_limit=100,
        apply_global=apply_global,
    )


def turn(lanes: Lanes) -> None:
    """As Celery's loop: update when the value is not what was told."""
    for _ in range(10):
        if lanes.prev == lanes.value:
            return
        lanes.update()
    raise AssertionError("the lanes never came to rest")


@pytest.mark.parametrize("apply_global", [True, False], ids=["per channel", "per consumer"])
def test_an_eta_input_that_arrives_while_the_broker_answers_is_told_too(
    apply_global: bool,
) -> None:
    channel, consumer = Channel(), Consumer()
    lane = lane_of(channel, consumer, apply_global=apply_global)
    lanes = Lanes([lane], lambda queue: lane)
    turn(lanes)

    def another() -> None:
        lane.eta_held += 1

    lane.eta_held += 1
    channel.arrives = another
    turn(lanes)

    if apply_global:
        assert channel.counts[-1] == 4 + 2
    else:
        assert len(consumer.tags) == 2


def test_the_count_of_a_nested_update_stands() -> None:
    channel, consumer = Channel(), Consumer()
    lane = lane_of(channel, consumer, apply_global=True)

    def starts_early() -> None:
        lane.early_running += 1
        lane.update()

    lane.eta_held += 1
    channel.arrives = starts_early
    lane.update()
    lane.early_running -= 1
    lane.update()
    assert channel.counts == [4, 5, 4, 5]
