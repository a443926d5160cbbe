"""Acknowledging many messages in one write, and where that is the same, in one frame.

What always holds, on the consumer's thread, which alone touches this:

- a message is *open* from its delivery until it is acknowledged or rejected, and none of these
  twice: RabbitMQ closes a channel on which that happens;
- "all up to this one" is said only where no open message below it is to stay open.
"""

from __future__ import annotations

from struct import pack
from typing import Any

from kombu.transport.pyamqp import Channel

_METHOD, _END = 1, 0xCE
_BASIC, _ACK = 60, 80
#: Bytes of the method: its class and number, the delivery tag, the flag.
_SIZE = 13


def frame(channel: int, tag: int, multiple: bool) -> bytes:
    """The frame of a ``basic.ack`` (AMQP 0-9-1, 4.2.3 and 1.8.3.13)."""
    method = (_BASIC, _ACK, tag, multiple)
    return pack(">BHIHHQBB", _METHOD, channel, _SIZE, *method, _END)


class OpenTags:
    """The open messages of one channel, and which of them are to be acknowledged."""

    def __init__(self) -> None:
        #: In the order of their delivery, which is that of their numbers.
        self._open: dict[int, None] = {}
        self._settled: set[int] = set()

    def deliver(self, tag: int) -> None:
        """A message has come."""
        self._open[tag] = None

    def settle(self, tag: int) -> None:
        """It is to be acknowledged."""
        self._settled.add(tag)

    def forget(self, tag: int) -> None:
        """It was acknowledged or rejected otherwise."""
        self._open.pop(tag, None)
        self._settled.discard(tag)

    def take(self) -> list[tuple[int, bool]]:
        """What is to be said: tags, and whether all below are meant as well; then they are closed.

        Tags that say more stand first, and each open message is closed by one of them.
        """
        if not self._settled:
            return []
        settled, self._settled = self._settled, set()
        stays = next((tag for tag in self._open if tag not in settled), None)
        together = [tag for tag in settled if stays is None or tag < stays]
        alone = sorted(settled.difference(together))
        for tag in settled:
            self._open.pop(tag, None)
        said = [(tag, False) for tag in alone]
        return [(max(together), len(together) > 1), *said] if together else said


class AckingChannel(Channel):
    """A channel for consuming whose acknowledgements wait for :meth:`flush`."""

    def __init__(self, connection: Any) -> None:
        self._tags = OpenTags()
        super().__init__(connection, None)

    def message_to_python(self, raw_message: Any) -> Any:
        """Called for each delivery, before anything can acknowledge it (kombu 5.7)."""
        self._tags.deliver(raw_message.delivery_tag)
        return super().message_to_python(raw_message)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **options: Any) -> Any:
        if multiple:
            raise NotImplementedError("a node acknowledges each input by itself")
        self._tags.settle(delivery_tag)

    def basic_reject(self, delivery_tag: int, requeue: bool, **options: Any) -> Any:
        # Before a flush could say "all up to" a later one.
        self._tags.forget(delivery_tag)
        return super().basic_reject(delivery_tag, requeue, **options)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is not None and self.is_open and self.connection.connected:
            self.flush()
        return super().close(*args, **kwargs)

    def flush(self) -> None:
        """Send what is settled, in one write.

        Raises:
            OSError: the connection is gone; RabbitMQ delivers again what it has not heard of.
        """
        said = self._tags.take()
        connection = self.connection
        if said and connection is not None:
            frames = [frame(self.channel_id, tag, multiple) for tag, multiple in said]
            connection.transport.write(b"".join(frames))
            connection.bytes_sent += len(frames)  # by which heartbeats know that something went
