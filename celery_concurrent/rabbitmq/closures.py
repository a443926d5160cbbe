"""Channels that RabbitMQ closes while a node consumes: they count as a lost connection.

It does so when an input takes longer than its ``consumer_timeout``. Celery takes that for an error
for good and ends the worker, with all inputs that run; here the consumer connects again, and knows
what runs by its redelivery.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqp.exceptions import PreconditionFailed, RecoverableConnectionError

#: AMQP's classes whose methods declare something: that it is there already, with other arguments,
#: is an error for good.
_DECLARING = (40, 50)


@contextmanager
def closed_channels_as_lost_connections() -> Iterator[None]:
    """Raise such an error as a connection's; everything else as it is."""
    try:
        yield
    except PreconditionFailed as error:
        method = error.method_sig or (0, 0)
        if method[0] in _DECLARING:
            raise
        raise RecoverableConnectionError(f"RabbitMQ closed a channel: {error}") from error
