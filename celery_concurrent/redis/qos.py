"""kombu's account of what is unacknowledged, for messages that a script has registered."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual


class AtomicQoS(kombu_redis.QoS):
    """Counts what is unacknowledged; the script has registered it, acks go out together."""

    def append(self, message: Any, delivery_tag: str) -> None:
        message._raw = None  # the envelope, with the encoded body: only kombu's own QoS wants it
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self.channel.ledger.add(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.channel.put_back([delivery_tag], at_head=False)
            virtual.QoS.ack(self, delivery_tag)
        else:  # to Redis the same as an ack, and kept like one when the connection is lost
            self.ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        self.channel.flush_acks()
        self.channel.put_back(list(self._delivered))
        self._delivered.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """What others took and have not settled in time; not when Redis has just come back.

        Nodes that are alive have not renewed their scores by then.
        """
        if self.channel.leases.is_settled:
            super().restore_visible(*args, **kwargs)
