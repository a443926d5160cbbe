"""The consumer's loop where a pool of green threads runs without a hub.

Celery's own (``celery.worker.loops.synloop``, 5.6 and 5.7) waits a tenth of a second for
heartbeats on the events' connection after *each* message, which holds RabbitMQ at ten inputs
per second. This one does the same things, and reads those heartbeats once a second.
"""

from __future__ import annotations

import time
from typing import Any

from celery.bootsteps import RUN
from celery.worker import state
from celery.worker.loops import _enable_amqheartbeats, _quick_drain

#: As Celery's loops: two heartbeats are sent in the interval that was negotiated.
HEARTBEATS_PER_INTERVAL = 2.0
#: Seconds between two looks at the events' connection.
READ_EVENTS_EVERY = 1.0
#: Seconds that such a look waits: what is there is there.
READ_EVENTS_FOR = 0.001
#: Seconds after which the loop looks at the worker's state, whatever arrives.
DRAIN_FOR = 2.0


def green_loop(
    consumer: Any, connection: Any, task_consumer: Any, blueprint: Any, *rest: Any
) -> None:
    """Consume until the blueprint stops.

    Args:
        consumer: a NodeConsumer.
        connection: that is consumed from.
        task_consumer: fetches.
        blueprint: says when to stop.
        rest: of ``Consumer.loop_args``: the hub, which is None, the qos, and more.

    Raises:
        OSError: the connection is lost.
    """
    qos = rest[1]
    events = consumer.event_dispatcher and consumer.event_dispatcher.connection
    lost = [_enable_amqheartbeats(consumer.timer, connection, rate=HEARTBEATS_PER_INTERVAL)]
    if events:
        lost.append(_enable_amqheartbeats(consumer.timer, events, rate=HEARTBEATS_PER_INTERVAL))
    task_consumer.on_message = consumer.create_task_handler()
    task_consumer.consume()
    consumer.on_ready()
    read_events_at = 0.0
    while blueprint.state == RUN and consumer.connection:
        state.maybe_shutdown()
        for error in lost:
            if error[0] is not None:
                raise error[0]
        if qos.prev != qos.value:
            qos.update()
        consumer.check_lease()
        consumer.perform_pending_operations()
        try:
            connection.drain_events(timeout=DRAIN_FOR)
        except TimeoutError:
            pass
        except OSError:
            if blueprint.state == RUN:
                raise
        if events and events.supports_heartbeats and time.monotonic() > read_events_at:
            read_events_at = time.monotonic() + READ_EVENTS_EVERY
            _quick_drain(events, timeout=READ_EVENTS_FOR)
