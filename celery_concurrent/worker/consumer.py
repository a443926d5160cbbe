"""Celery's consumer, fetching by slots: a subclass, and the step that gives it its lanes.

Celery's internals that are used here (5.6 and 5.7): ``Consumer.call_soon`` and
``call_soon_ack`` (how acks reach the hub), ``apply_eta_task`` and ``_limit_post_eta`` (when an
ETA is due), ``_schedule_bucket_request`` (where inputs wait for their rate),
``update_strategies`` (before each tracer is built), ``_update_prefetch_count``,
``cancel_active_requests``, ``on_close`` (called as the consumer stops, and as it starts anew),
``on_send_event_buffered`` (5.7: one flush per turn of the hub) and
``on_connection_error_after_connected``.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker import state as worker_state
from celery.worker.consumer.tasks import Tasks
from kombu.common import ignore_errors

from celery_concurrent import routing
from celery_concurrent.marks import mark_of
from celery_concurrent.pool.inputs import Input, guarded
from celery_concurrent.pool.slots import PLAIN
from celery_concurrent.rabbitmq.fetching import RabbitFetching
from celery_concurrent.redis.channel import AtomicChannel
from celery_concurrent.redis.fetching import RedisFetching
from celery_concurrent.redis.polling import poll_open_sockets
from celery_concurrent.redis.refusals import refusals_as_lost_connections
from celery_concurrent.worker import plan
from celery_concurrent.worker.ahead import Ahead
from celery_concurrent.worker.connecting import node_pool
from celery_concurrent.worker.greenloop import green_loop
from celery_concurrent.worker.holding import leases_of
from celery_concurrent.worker.lanes import LaneConsumer, Lanes
from celery_concurrent.worker.receiving import ReceivingConsumer

logger = get_logger(__name__)

#: Seconds for which the hub may be busy and its connection count as alive. A broker gives its
#: inputs to others after a heartbeat at the earliest (120 s by Celery's default).
LONGEST_TURN = 10.0


class LaneStep(bootsteps.StartStopStep):
    """Takes the place of the one consumer that Celery's Tasks step has made."""

    requires = (Tasks,)

    def start(self, c: Any) -> None:
        if isinstance(c, NodeConsumer):
            c.open_lanes()

    def stop(self, c: Any) -> None:
        if isinstance(c, NodeConsumer):
            c.close_lanes()


class NodeConsumer(ReceivingConsumer):
    """Fetches by the slots of the pool, and settles in order on one thread."""

    lanes: Lanes | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.hub is None and self.pool.is_green:
            self.loop = green_loop
        self._redis = RedisFetching(partial(leases_of, node_pool(self), self.hostname))
        self._rabbitmq = RabbitFetching()
        self._has_events = False
        self._hub_turns = False
        self._disables_prefetch = bool(self.app.conf.worker_disable_prefetch)
        pool = node_pool(self)
        self._ahead = Ahead(pool.engine, self.timer)
        pool.inbox.after_drain = self._after_settling
        pool.on_closed.append(self._redis.close)

    # -- lanes

    def open_lanes(self) -> None:
        """Make the lanes of this connection; they fetch when Celery's loop says ``consume``."""
        pool = node_pool(self)
        if self.hub is None:
            poll_open_sockets(self.connection.transport)
        if pool.settings.batching:
            self._redis.connect(self.connection.transport, has_hub=self.hub is not None)
            self._rabbitmq.connect(self.connection, self.hub)
        self._ahead.begin(self._may_fetch_ahead())
        queues = list(self.app.amqp.queues.consume_from)
        groups = routing.groups_by_queue(self.app, PLAIN)
        opened = [self._open_lane(lane) for lane in plan.lanes(queues, groups, PLAIN)]
        self._redis.resume(
            {
                input.request.message.delivery_tag
                for input in pool.engine.running
                # What was cancelled with its connection still ends, and is to run again.
                if input.ended is None and not input.dropped
            }
        )
        self.lanes = self.task_consumer = self.qos = Lanes(opened, self._lane_with)
        self._ahead.attend(self.lanes)
        pool.engine.gate = self.lanes
        pool.engine.hold = self._redis.hold
        pool.engine.give_back = _give_back
        # In green threads an input may end in the hub's own, where nothing may wait.
        if not pool.is_green:
            pool.engine.passing.allow(inf if self.hub is None else LONGEST_TURN)
        if self.hub is not None:
            self.hub.on_tick.add(self._turn)
            self._hub_turns = True

    def close_lanes(self) -> None:
        """Nothing more is fetched; what was, is still acknowledged on these channels."""
        if self.hub is not None:
            self.hub.on_tick.discard(self._turn)
            self._hub_turns = False

    def _open_lane(self, lane: plan.Lane) -> LaneConsumer:
        queues = self.app.amqp.queues
        return LaneConsumer(
            lane,
            self._redis.channel(self.connection.transport, lane.queues)
            or self._rabbitmq.channel(self.connection)
            or self.connection.channel(),
            self._make_consumer,
            [queues[name] for name in lane.queues],
            limit=self._fetch_limit,
            eta_limit=node_pool(self).settings.eta_limit,
            apply_global=self._counts_per_channel(),
        )

    def _lane_with(self, queue: Any) -> LaneConsumer:
        """The lane of a queue that is added while the node runs (``add_consumer``)."""
        assert self.lanes is not None
        groups = frozenset(routing.groups_by_queue(self.app, PLAIN).get(queue.name, {PLAIN}))
        node_pool(self).count(groups)
        for lane in self.lanes:
            if lane.lane.groups & groups:
                lane.join(queue, groups)
                return lane
        return self._open_lane(plan.Lane(queues=(queue.name,), groups=groups))

    def _make_consumer(self, channel: Any, queues: list[Any]) -> Any:
        return self.app.amqp.TaskConsumer(
            channel, queues=queues, on_decode_error=self.on_decode_error
        )

    def _fetch_limit(self, lane: plan.Lane) -> int:
        groups = node_pool(self).slots.groups
        limit = 0
        for name in lane.groups:
            allowed = groups[name].allowed
            if name == PLAIN:
                limit += allowed * self._plain_factor
            else:
                limit += allowed + self._ahead.of(groups[name])
        return limit or 65535  # worker_prefetch_multiplier=0 lifts the limit

    def _may_fetch_ahead(self) -> bool:
        """Whether inputs can be given back here, and may be fetched ahead.

        Not without a hub (eventlet), nor where the broker counts per consumer (quorum queues), of
        which some would come and go.
        """
        if self.hub is None or self._disables_prefetch:
            return False
        return self._redis.is_connected or self._counts_per_channel()

    @property
    def _plain_factor(self) -> int:
        return 1 if self._disables_prefetch else self.prefetch_multiplier or 0

    def _counts_per_channel(self) -> bool:
        if self.connection.qos_semantics_matches_spec:
            return False
        uses_quorum, _ = detect_quorum_queues(self.app, self.connection.transport.driver_type)
        return not uses_quorum

    def _turn(self) -> None:
        """At the end of each of the hub's turns, before it polls."""
        pool = node_pool(self)
        pool.engine.passing.allow(LONGEST_TURN)
        self.check_lease()
        self._redis.take()
        slots = pool.slots
        self._redis.flush_acks_between_takes(most=slots.total - slots.running)
        self._rabbitmq.turn()
        self._flush_events()

    def check_lease(self) -> None:
        """Start over when what the node holds is others' by now.

        Raises:
            LeaseLostError: Celery restarts the consumer, as after a lost connection.
        """
        self._redis.check_lease()

    def _flush_events(self) -> None:
        """Send the events of one turn together."""
        if self._has_events and self.event_dispatcher is not None:
            self._has_events = False
            self.event_dispatcher.flush(errors=False)

    def on_send_event_buffered(self) -> None:
        # Not by the hub's call_soon: what is asked for in the midst of a turn, where inputs
        # are settled, waits for the poll to end, up to a second (kombu 5.7).
        self._has_events = True

    def _after_settling(self) -> None:
        """Flush what settling has brought, at shutdown too, when the hub no longer turns.

        Acks that cannot go are kept for the next connection: that this one is gone, the
        consumer finds out by itself.
        """
        if self._hub_turns and not worker_state.should_terminate:
            return  # the hub's turn in which this is called flushes at its end
        try:
            with refusals_as_lost_connections():
                self._redis.flush_acks()
                self._rabbitmq.flush_acks()
                self._flush_events()
        except (*self.connection_errors, ValueError) as error:
            # ValueError: without a hub, the consumer may close what is just being read.
            logger.debug("acks are kept for the next connection: %r", error)
        if self.hub is None:
            self._redis.ring()

    def on_ready(self) -> None:
        super().on_ready()
        node_pool(self).status.enters("ready")

    def on_close(self) -> None:
        engine = node_pool(self).engine
        engine.passing.allow(0.0)
        if engine.is_refusing and self.lanes is not None:
            # The node stops. What waits for a slot goes back now: what runs may take hours. Not
            # while it consumes, or a broker sends it here again.
            ignore_errors(self.connection, self.lanes.cancel)
            self.call_soon(self._send_back, engine.forget_waiting())
        super().on_close()

    def _send_back(self, inputs: list[Input]) -> None:
        try:
            node_pool(self).engine.send_back(inputs)
        except (*self.connection_errors, *self.channel_errors) as error:
            logger.debug("what waits for a slot goes back with its connection: %r", error)

    # -- settling on one thread

    def call_soon(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acks and rejects: at once on the settling thread, in order from any other."""
        inbox = node_pool(self).inbox
        if inbox.is_here:
            return p(*args, **kwargs)
        call = partial(p, *args, **kwargs)
        inbox.post(call)
        return call

    call_soon_ack = call_soon

    def cancel_active_requests(self) -> None:
        # A cold stop. What has ended already is settled first, and not run again; in its slots
        # nothing starts, which would be cancelled in the same breath.
        node_pool(self).engine.refuse()
        node_pool(self).inbox.drain()
        super().cancel_active_requests()

    # -- ETA inputs count for the lane that brought them

    def apply_eta_task(self, task: Any) -> None:
        if self.lanes is None:
            return
        with self.lanes.entered(task.message):
            super().apply_eta_task(task)

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: int) -> Any:
        if self.lanes is None:
            return None
        with self.lanes.entered(request.message):
            return super()._limit_post_eta(request, bucket, tokens)

    def _schedule_bucket_request(self, bucket: Any) -> Any:
        scheduled = super()._schedule_bucket_request(bucket)
        if bucket.contents:
            task = bucket.contents[0][0].task
            mark = mark_of(task)
            if mark is not None:
                self._ahead.waits(mark.group_of(task))
        return scheduled

    # -- the slots are the prefetch count

    def update_strategies(self) -> None:
        for task in self.app.tasks.values():
            if not hasattr(task.run, "__guarded__"):
                task.run = guarded(task.run, task.request_stack)
        super().update_strategies()

    def _update_prefetch_count(self, index: int = 0) -> None:
        if self.lanes is not None:
            self.lanes.update()

    def _restore_prefetch_count_after_connection_restart(self, p: Any, *args: Any) -> None:
        """The lanes' limits hold at once, on every connection."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        node_pool(self).engine.passing.allow(0.0)
        self._ahead.begin(False)
        # Before the broken connection is closed, which would give back what still runs here.
        self._rabbitmq.disconnect()
        self._redis.disconnect()
        if self._redis.start_over():
            node_pool(self).engine.drop_held()
        self.lanes = None
        super().on_connection_error_after_connected(exc)


def _give_back(messages: list[Any]) -> None:
    """Put them back at the head of their queues, in order."""
    by_channel: dict[Any, list[Any]] = {}
    for message in messages:
        by_channel.setdefault(message.channel, []).append(message)
    for channel, own in by_channel.items():
        if isinstance(channel, AtomicChannel):
            channel.give_back([message.delivery_tag for message in own])
        elif not hasattr(channel, "qos"):  # RabbitMQ's
            for message in own:
                message.requeue()
        # kombu's emulated channels may still be popping (BRPOP), and would get it themselves: there
        # it goes back when they close.
