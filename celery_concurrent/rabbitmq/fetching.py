"""What a node does with its consuming connection to RabbitMQ, beside kombu and py-amqp.

The consumer's thread has the connection for itself, in the worker's hub: without a hub (eventlet)
others write to it too, and over TLS there is nothing to be read without decrypting it. Both are
left to py-amqp.
"""

from __future__ import annotations

from typing import Any

from celery_concurrent.rabbitmq.acks import AckingChannel
from celery_concurrent.rabbitmq.frames import FrameReader


class RabbitFetching:
    """Gives lanes their channels where the broker is RabbitMQ; all on the consumer's thread."""

    def __init__(self) -> None:
        self._reader: FrameReader | None = None
        self._channels: list[AckingChannel] = []

    def connect(self, connection: Any, hub: Any) -> None:
        """Begin with a new connection; one that is not to RabbitMQ, or not plain, is kombu's."""
        self.disconnect()
        amqp = connection.connection
        if hub is not None and FrameReader.reads(amqp):
            self._reader = FrameReader(amqp)
            hub.add_reader(amqp.sock, self._reader.on_readable)

    def channel(self, connection: Any) -> AckingChannel | None:
        """A channel to fetch with; None where kombu's own has to serve."""
        if self._reader is None:
            return None
        channel = AckingChannel(connection.connection)
        channel.open()
        self._channels.append(channel)
        return channel

    def disconnect(self) -> None:
        """The connection is lost, and what is not acknowledged is RabbitMQ's again."""
        self._reader, self._channels = None, []

    def turn(self) -> None:
        """To be called before the hub sleeps.

        Raises:
            OSError: the connection is gone.
        """
        if self._reader is not None:
            self._reader.handle_left()
            self.flush_acks()

    def flush_acks(self) -> None:
        """Send what is settled."""
        for channel in self._channels:
            channel.flush()
