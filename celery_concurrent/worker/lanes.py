"""Fetching by slots: a channel per lane, each with a limit of its own.

:class:`Lanes` stands where Celery's consumer has its one ``task_consumer`` and its ``qos``.

What always holds, on the consumer's thread, which alone touches this:

- a lane has fetched at most ``limit`` inputs that are not settled, ETA and countdown inputs
  apart; these are bounded by ``eta_limit``, beyond which they take from the limit;
- an input acknowledged early (``acks_late=False``) counts until it ends, though the broker has
  forgotten it. Tasks without ``@concurrent`` keep Celery's rule, ``worker_prefetch_multiplier``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Consumer as KombuConsumer
from kombu.common import ignore_errors

from celery_concurrent.redis.channel import AtomicChannel
from celery_concurrent.worker.plan import Lane


class LaneConsumer:
    """One lane: its channel, its kombu consumer, and the count of what it fetched.

    Args:
        lane: its queues and groups.
        channel: a channel of its own on the consuming connection.
        make_consumer: makes a kombu consumer of given queues on a channel.
        limit: gives how many inputs a lane may have fetched, now.
        eta_limit: how many ETA inputs do not count.
        apply_global: whether the broker counts per channel (False: per consumer, which a
            change does not reach once it runs).
    """

    def __init__(
        self,
        lane: Lane,
        channel: Any,
        make_consumer: Callable[[Any, list[Any]], KombuConsumer],
        queues: list[Any],
        *,
        limit: Callable[[Lane], int],
        eta_limit: int,
        apply_global: bool,
    ) -> None:
        self.lane = lane
        self.channel = channel
        self._limit = limit
        self._eta_limit = eta_limit
        self._apply_global = apply_global
        self._is_virtual = hasattr(channel, "qos")  # kombu's own emulation: Redis and others
        self._prefetch: int | None = None
        self._extra_tags: list[str] = []
        self._is_updating = False
        self.eta_held = 0
        self.early_running = 0
        # A prefetch count must stand before the first consumer does.
        self.update()
        self.consumer = make_consumer(channel, queues)
        if self._is_virtual:
            self._count_by_slots()

    def join(self, queue: Any, groups: frozenset[str]) -> None:
        """Fetch from one more queue, whose inputs take slots of this lane as well."""
        self.lane = Lane(queues=(*self.lane.queues, queue.name), groups=self.lane.groups | groups)
        self.consumer.add_queue(queue)
        self.update()

    @property
    def wanted_prefetch(self) -> int:
        """How many unacknowledged messages the broker may have sent us."""
        wanted = self._limit(self.lane) + min(self.eta_held, self._eta_limit)
        if self._apply_global or self._is_virtual:
            # Early acknowledged inputs are none of the broker's any more: it may send less.
            wanted -= self.early_running
        return max(0 if self._is_virtual else 1, wanted)

    def excess(self, held: int) -> int:
        """How many more inputs it holds than it would fetch now.

        Args:
            held: of its messages, those that are not acknowledged, and are due.
        """
        return held - (self.wanted_prefetch - min(self.eta_held, self._eta_limit))

    def can_give_back(self, message: Any) -> bool:
        """Whether a message that it has fetched would be delivered again."""
        if message.channel is not self.channel:
            return False
        if isinstance(self.channel, AtomicChannel):
            return self.channel.holds(message)
        # A queue that is deleted when nobody consumes from it drops what comes back (kombu 5.7).
        return message.delivery_info.get("consumer_tag") in self.consumer._active_tags.values()

    def update(self) -> None:
        """Tell the broker how much it may send, where that has changed."""
        wanted = self.wanted_prefetch
        if self._is_virtual:
            self._prefetch = wanted
            return
        if wanted == self._prefetch:
            return
        if self._apply_global or self._prefetch is None:
            # Noted before it is sent: inputs that arrive while the broker answers are handled
            # within this call, and may ask for another count.
            self._prefetch = wanted
            self.channel.basic_qos(0, wanted, self._apply_global)
        elif not self._is_updating:
            self._is_updating = True
            try:
                self._update_consumers(wanted)
            finally:
                self._is_updating = False

    def _count_by_slots(self) -> None:
        """kombu's emulated QoS asks before each fetch: answer by the slots, not by a number.

        Its own ``prefetch_count`` cannot say "none", for 0 means "no limit" there.
        """
        qos = self.channel.qos

        def free() -> int:
            unacked = len(qos._delivered) - len(qos._dirty)
            return max(0, self.wanted_prefetch - unacked)

        qos.can_consume = lambda: free() > 0
        qos.can_consume_max_estimate = free

    def _update_consumers(self, wanted: int) -> None:
        """Where the broker counts per consumer: more or fewer consumers of one message each.

        An ETA input keeps its place in the count of the consumer that brought it, so a
        consumer more gives that place back. RabbitMQ's quorum queues need this.
        """
        assert self._prefetch is not None
        while self._prefetch < wanted:
            self.channel.basic_qos(0, 1, False)
            for queue in self.consumer.queues:
                tag = f"{self.consumer.tag_prefix or 'eta'}-{len(self._extra_tags)}-{queue.name}"
                queue.consume(tag, self.consumer._receive_callback)
                self._extra_tags.append(tag)
            self._prefetch += 1
        while self._prefetch > wanted and self._extra_tags:
            for _ in self.consumer.queues:
                self.channel.basic_cancel(self._extra_tags.pop())
            self._prefetch -= 1


class Lanes:
    """The lanes of one connection, as Celery's consumer wants its ``task_consumer``.

    Args:
        consumers: the lanes, in order.
        lane_with: makes a lane of a queue that is added later, or adds it to one of these.
    """

    def __init__(
        self, consumers: list[LaneConsumer], lane_with: Callable[[Any], LaneConsumer]
    ) -> None:
        self._lanes = consumers
        self._lane_with = lane_with
        self._handle: Callable[[Any], None] = _not_consuming
        self._by_channel = {lane.channel: lane for lane in consumers}
        self._current: LaneConsumer | None = None

    # -- as a kombu consumer

    @property
    def channel(self) -> Any:
        """The first lane's channel."""
        return self._lanes[0].channel

    @property
    def queues(self) -> list[Any]:
        """All queues consumed from, as kombu's."""
        return [queue for lane in self._lanes for queue in lane.consumer.queues]

    @property
    def on_message(self) -> Any:
        """What is called with each message."""
        return self._handle

    @on_message.setter
    def on_message(self, handle: Callable[[Any], None]) -> None:
        self._handle = handle
        for lane in self._lanes:
            lane.consumer.on_message = self._in_lane(lane, handle)

    def consume(self, no_ack: bool | None = None) -> None:
        """Start fetching."""
        for lane in self._lanes:
            lane.consumer.consume(no_ack)

    def consuming_from(self, queue: Any) -> bool:
        """Whether a lane consumes from the queue."""
        return any(lane.consumer.consuming_from(queue) for lane in self._lanes)

    def add_queue(self, queue: Any) -> Any:
        """Fetch from one more queue, in a lane of its own where it has slots of its own."""
        lane = self._lane_with(queue)
        if lane not in self._lanes:
            lane.consumer.on_message = self._in_lane(lane, self._handle)
            self._lanes.append(lane)
            self._by_channel[lane.channel] = lane
        return queue

    def cancel_by_queue(self, queue: str) -> None:
        """Stop fetching from a queue."""
        for lane in self._lanes:
            if lane.consumer.consuming_from(queue):
                lane.consumer.cancel_by_queue(queue)

    def cancel(self) -> None:
        """Stop fetching."""
        for lane in self._lanes:
            lane.consumer.cancel()

    def close(self) -> None:
        """Stop fetching and close the channels; what is unacknowledged goes back."""
        for lane in self._lanes:
            ignore_errors(lane.channel.connection, lane.consumer.close)

    # -- as Celery's qos, which counts ETA inputs

    #: Celery's loop compares them and calls update(); a lane knows itself what it has told.
    prev = 0

    @property
    def value(self) -> int:
        """Messages that all lanes may have fetched (shown by ``inspect stats``)."""
        return sum(lane.wanted_prefetch for lane in self._lanes)

    def increment_eventually(self, n: int = 1) -> int:
        """An ETA input arrived on the lane whose message is being handled."""
        if self._current is not None:
            self._current.eta_held += n
        return self.value

    def decrement_eventually(self, n: int = 1) -> int:
        """An ETA input is due."""
        if self._current is not None:
            self._current.eta_held = max(0, self._current.eta_held - n)
        return self.value

    def set(self, pcount: int) -> int:
        """Celery's way to change all at once; the lanes follow their slots instead."""
        return pcount

    def update(self) -> None:
        """Bring every lane's prefetch in line with its slots."""
        # Read first: what arrives while a broker answers is for the next turn's update.
        told = self.value
        for lane in self._lanes:
            lane.update()
        self.prev = told

    # -- lanes

    def __iter__(self) -> Iterator[LaneConsumer]:
        return iter(self._lanes)

    def started_early(self, request: Any) -> None:
        """An input is about to be acknowledged before it runs: call this before the ack.

        The broker then has been told that it may send one less when the ack frees a place.
        """
        lane = self.lane_of(request.message)
        if lane is not None:
            lane.early_running += 1
            lane.update()

    def ended_early(self, request: Any) -> None:
        """Such an input has ended."""
        lane = self.lane_of(request.message)
        if lane is not None:
            lane.early_running -= 1

    def lane_of(self, message: Any) -> LaneConsumer | None:
        """The lane that brought a message; None when its connection is gone."""
        return self._by_channel.get(message.channel)

    @contextmanager
    def entered(self, message: Any) -> Iterator[None]:
        """Count ETA inputs for the lane of this message."""
        before, self._current = self._current, self.lane_of(message)
        try:
            yield
        finally:
            self._current = before

    def _in_lane(self, lane: LaneConsumer, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        def handle_in_lane(message: Any) -> None:
            before, self._current = self._current, lane
            try:
                handle(message)
            finally:
                self._current = before

        return handle_in_lane


def _not_consuming(message: Any) -> None:
    raise RuntimeError(f"{message!r} arrived before the consumer was ready")
