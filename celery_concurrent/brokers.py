"""Connections to the broker beside a worker's own: none stays with a broker that is gone.

Of a list of brokers kombu's ``connect`` tries two, and its timers, which notice that a connection
has died without a word, run in a worker's event loop only (kombu 5.7).
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

from kombu import Consumer

#: Seconds of silence after which a broker is asked for a word.
SILENCE: Final = 10.0
#: Seconds between two looks whether to stop.
_LOOK: Final = 0.5


def listening(app: Any) -> Any:
    """A connection for :func:`hear`, not made yet; by its heartbeat RabbitMQ notices, too."""
    return app.connection_for_read(heartbeat=min(app.conf.broker_heartbeat or 0, SILENCE))


def reach(connection: Any) -> None:
    """Connect to the first of its brokers that answers; each is tried once.

    With Redis, too, its ``connect_timeout`` counts for each of them, and for every answer. The
    user's transport options go before.

    Raises:
        kombu.exceptions.OperationalError: none does.
    """
    if connection.get_transport_cls().driver_type == "redis":
        seconds = connection.connect_timeout or None  # 0 would not wait at all
        given = connection.transport_options or {}
        connection.transport_options = {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "health_check_interval": SILENCE,
            **{name: value for name, value in given.items() if value is not None},
        }
    connection.ensure_connection(
        max_retries=max(0, len(connection.alt) - 1),
        interval_start=0,
        interval_step=0,
        interval_max=0,
    )


def consume(receiver: Any) -> None:
    """Have a receiver's events come on its own connection.

    Its ``capture`` makes another one, which nobody could look after (Celery 5.6 and 5.7).
    """
    make = partial(Consumer, receiver.channel, on_decode_error=receiver.on_decode_error)
    for consumer in receiver.get_consumers(make, receiver.channel):
        consumer.consume()


def hear(connection: Any, until: threading.Event) -> None:
    """Have what comes handled until the event is set.

    Raises what the connection raises when its broker is gone, also without a word.
    """
    subscription = _Subscription(connection)
    try:
        while not until.is_set():
            # Also while much comes: the broker wants to hear something, too.
            connection.heartbeat_check()
            subscription.check()
            with suppress(TimeoutError):
                connection.drain_events(timeout=_LOOK)
    except BaseException:
        # At once: an orderly goodbye waits for the answer of a broker that may give none.
        connection.collect()
        raise


class _Subscription:
    """With Redis, kombu's check: connects again where two PINGs in turn have had no answer."""

    def __init__(self, connection: Any) -> None:
        cycle = getattr(connection.transport, "cycle", None)
        self._check = getattr(cycle, "maybe_check_subclient_health", None)
        self._interval = (connection.transport_options or {}).get("health_check_interval")
        self._due = time.monotonic()

    def check(self) -> None:
        if self._check is None or not self._interval or time.monotonic() < self._due:
            return
        self._check()
        self._due = time.monotonic() + self._interval
