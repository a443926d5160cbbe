"""What a node keeps of Redis over its broker connections: wake-ups, acks, and what it has taken.

An unacknowledged message is an entry in Redis, not a matter of the connection that took it. So
when a connection is lost, what runs goes on and is acknowledged over the next one; only what
has not started goes back to its queue. When the node's lease is lost (:mod:`.leases`), it has
nothing left of all this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from celery.utils.log import get_logger
from kombu.transport.redis import Transport
from redis.exceptions import ResponseError

from celery_concurrent.redis.channel import AtomicChannel
from celery_concurrent.redis.holdings import Holdings
from celery_concurrent.redis.lease import Lease, LeaseLostError
from celery_concurrent.redis.leases import Leases, quickly
from celery_concurrent.redis.ledger import Ledger
from celery_concurrent.redis.records import LostTake
from celery_concurrent.redis.refusals import refusals_as_lost_connections
from celery_concurrent.redis.wakeups import Wakeups

logger = get_logger(__name__)


class RedisFetching:
    """Gives lanes their channels where the broker is a plain Redis.

    Everything is called on the consumer's thread; without a hub, :meth:`flush_acks` and
    :meth:`ring` on the settling thread. The leases' thread calls :meth:`tags`.

    Args:
        make_leases: makes what keeps the node's lease, given what tells the tags that it holds.
    """

    def __init__(self, make_leases: Callable[[Callable[[], list[str]]], Leases]) -> None:
        self._leases = make_leases(self.tags)
        self._wakeups: Wakeups | None = None
        self._channels: list[tuple[frozenset[str], AtomicChannel]] = []
        self._ledger = Ledger()
        #: Messages by tag that earlier connections have taken, with the queues of their lane.
        self._taken: list[tuple[frozenset[str], dict[str, Any]]] = []
        #: Takes whose answers were lost: Redis knows what was in them.
        self._lost: list[LostTake] = []

    def connect(self, transport: Any, *, has_hub: bool) -> None:
        """Begin with a new connection; a transport that is no plain Redis is left to kombu."""
        self._channels = []
        self._wakeups = None
        if type(transport) is not Transport:
            return
        wakeups = Wakeups(transport, has_hub=has_hub)
        if not wakeups.ack_emulation:
            wakeups.close()
            return
        try:
            with refusals_as_lost_connections():
                wakeups.check()
                Holdings(wakeups).probe(self._leases.current.id)
        except ResponseError as error:
            logger.warning(
                "Redis does not track keys or run scripts for this node (%s): inputs are taken in "
                "kombu's own way, which can lose one when the node is killed, and they come back "
                "after visibility_timeout. The node's own way needs Redis 6, and the permission "
                "for CLIENT TRACKING, EVAL and EVALSHA, and for the keys %s.*.",
                error,
                f"{wakeups.global_keyprefix}{wakeups.unacked_key}",
            )
            wakeups.close()
            return
        self._wakeups = wakeups
        self._leases.start(partial(quickly, transport.client, alternates=[]))

    @property
    def is_connected(self) -> bool:
        """Whether inputs are taken from Redis in the node's own way."""
        return self._wakeups is not None

    def channel(self, transport: Any, queues: Iterable[str]) -> AtomicChannel | None:
        """A channel to fetch these queues; None where kombu's own has to serve."""
        if self._wakeups is None:
            return None
        channel = AtomicChannel(transport, self._wakeups, self._ledger, self._leases)
        self._channels.append((frozenset(queues), channel))
        return channel

    def resume(self, running: set[str]) -> None:
        """Go on with what earlier connections have taken, when all channels are open.

        What runs counts for the lane that has its queues now, and is acknowledged there;
        everything else goes back to its queue.

        Args:
            running: the tags of the messages whose inputs run.
        """
        self.flush_acks()
        while self._lost and self._channels:
            tags = self._channels[0][1].recover(self._lost[-1])  # in the order of the take
            self._taken.append((frozenset(), dict.fromkeys(tags)))
            self._lost.pop()
        while self._taken and self._channels:
            queues, messages = self._taken[-1]
            channel = self._channel_for(queues)
            for tag in running & messages.keys() - self._ledger.tags:
                message = messages.pop(tag)
                if message is not None:  # else it is in a lost answer, too
                    channel.go_on_with(tag, message)
            # Again when this fails: what is put back is held no more, whoever has it by then.
            channel.put_back([tag for tag in messages if tag not in self._ledger])
            self._taken.pop()

    def disconnect(self) -> None:
        """The connection is lost: keep what it took, before closing it would give it back."""
        for queues, channel in self._channels:
            messages, lost = channel.hand_over()
            self._taken.append((queues, messages))
            if lost is not None:
                self._lost.append(lost)
        self._channels = []

    # -- the lease

    def hold(self) -> Lease | None:
        """Under which inputs are taken now; None where kombu takes them."""
        return None if self._wakeups is None else self._leases.current

    def tags(self) -> list[str]:
        """Of all that the node has and has not settled, where it runs and where it waits."""
        tags = [tag for _, messages in list(self._taken) for tag in list(messages)]
        for _, channel in list(self._channels):
            tags += list(channel.qos._delivered)
        return tags

    def check_lease(self) -> None:
        """Raise that the lease is lost.

        Raises:
            LeaseLostError: to be met as a lost connection.
        """
        if self._leases.current.is_lost:
            raise LeaseLostError("the node's lease has lapsed, and its inputs are others' by now")

    def start_over(self) -> bool:
        """Whether the lease is lost: then another begins, and nothing is left of what was held.

        To be called when the connection is lost, after :meth:`disconnect`.
        """
        if not self._leases.current.is_lost:
            return False
        self._taken.clear()
        self._lost.clear()
        self._ledger.clear()
        self._leases.begin()
        return True

    def close(self) -> None:
        """The node has drained: end its lease."""
        self._leases.close()

    # -- each turn

    def take(self) -> None:
        """Fill free slots, with the acks: what kombu's poller would do a moment later."""
        for _, channel in self._channels:
            channel.take()

    def flush_acks(self) -> None:
        """Send what is settled, now; it stays in the ledger until Redis has it."""
        for _, channel in self._channels[:1]:  # the ledger is one for all
            channel.flush_acks()

    def flush_acks_between_takes(self, most: int) -> None:
        """The same, unless a take has just gone out with them, or may in a moment.

        Args:
            most: how many may wait for that. Inputs that the node holds for their ETA, or in
                reserve, start in free slots without a take, and the broker is not to be behind by
                more inputs than there are slots.
        """
        if self._ledger.unsent > most or not any(
            channel.is_answered_soon for _, channel in self._channels
        ):
            self.flush_acks()

    def ring(self) -> None:
        """Wake a consumer that has no hub."""
        if self._wakeups is not None:
            self._wakeups.ring()

    def _channel_for(self, queues: frozenset[str]) -> AtomicChannel:
        for own, channel in self._channels:
            if own & queues:
                return channel
        return self._channels[0][1]
