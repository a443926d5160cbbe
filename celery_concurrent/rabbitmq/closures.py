"""Channels that RabbitMQ closes while a node consumes: they count as a lost connection.

It does so when an input takes longer than its ``consumer_timeout``. Celery takes that for an error
for good and ends the worker, with all inputs that run; here the consumer connects again, and knows
what runs by its redelivery.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqp.exceptions import PreconditionFailed, RecoverableConnectionError

#: AMQP's methods (class, method) that such an error names: acks and rejects, or none. What else is
#: refused so, to declare or to consume something, is refused for good.
_WHILE_CONSUMING = ((0, 0), (60, 80), (60, 90), (60, 120))


@contextmanager
def closed_channels_as_lost_connections() -> Iterator[None]:
    """Raise such an error as a connection's; everything else as it is."""
    try:
        yield
    except PreconditionFailed as error:
        if tuple(error.method_sig or (0, 0)) not in _WHILE_CONSUMING:
            raise
        raise RecoverableConnectionError(f"RabbitMQ closed a channel: {error}") from error
