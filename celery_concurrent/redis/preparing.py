"""A consuming connection to Redis, before kombu has put it into the hub."""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.transport.redis import Transport


def prepare(connection: Any) -> None:
    """Have a kombu connection do nothing that harms leases, or waits for ever (kombu 5.7).

    - As it goes into the hub kombu restores what has its score for longer than the visibility
      timeout, before the channel is there that would ask the leases: after an outage that is what
      living nodes hold. Its timer comes to it again.
    - With ``retry_on_timeout`` redis-py connects a broken connection that listens again in secret,
      unsubscribed, and the consumer waits on it for good.

    Args:
        connection: of the consumer, connected; left as it is where it is to no plain Redis.
    """
    transport = connection.transport
    if type(transport) is not Transport:
        return
    connection.transport_options = {
        name: value
        for name, value in (connection.transport_options or {}).items()
        if name != "retry_on_timeout"
    }
    transport.cycle.on_poll_init = partial(setattr, transport.cycle, "poller")
