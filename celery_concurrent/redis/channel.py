"""Taking inputs from Redis: registered as unacknowledged in the step that takes them.

kombu pops a message (BRPOP) and then writes it to the hash of unacknowledged ones: a node that
is killed between the two loses it. Here a script does both, for as many inputs as there are
free slots. An empty queue is waited for without popping: the channel's connection *tracks* the
queues' keys (``CLIENT TRACKING``, Redis 6 or later), and Redis tells when one changes.

A channel goes through these stages, on the consumer's thread:

    IDLE -> TAKING (script sent) -> IDLE            as many taken as asked, a key changed since,
                                                    or the node's lease does not live
                                 -> WAITING -> IDLE fewer: the queues are empty, until one changes

A take whose answer is lost with its connection is taken up by the next one, see :mod:`.records`.

It fits into kombu 5.7's poller in the place of BRPOP: ``_brpop_start`` is called when the
channel may consume and nothing is in flight, ``_brpop_read`` when its socket is readable.
"""

from __future__ import annotations

import enum
from collections import deque
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis import exceptions
from redis.exceptions import NoScriptError, ResponseError

from celery_concurrent.redis import envelopes
from celery_concurrent.redis.holdings import Holdings
from celery_concurrent.redis.leases import Leases
from celery_concurrent.redis.ledger import Ledger
from celery_concurrent.redis.messages import HeldMessage
from celery_concurrent.redis.qos import AtomicQoS
from celery_concurrent.redis.records import LostTake, Record
from celery_concurrent.redis.scripts import TAKE, TAKE_SHA
from celery_concurrent.redis.wakeups import Wakeups

logger = get_logger(__name__)

#: Messages in one take at the most: bounds how long the script holds up other clients.
LARGEST_TAKE = 100
#: Acks that go out with one take at the most, for the same reason.
LARGEST_ACK = 500


class Stage(enum.Enum):
    """What the channel's consuming connection is doing."""

    IDLE = enum.auto()
    TAKING = enum.auto()
    WAITING = enum.auto()


class AtomicChannel(kombu_redis.Channel):
    """A channel for consuming; made by hand, for it is told whom to wait with.

    Args:
        connection: the kombu transport.
        wakeups: tells when a queue's key has changed.
        ledger: where acks are collected.
        leases: keeps the lease under which inputs are taken.
    """

    QoS = AtomicQoS
    Message = HeldMessage

    def __init__(self, connection: Any, wakeups: Wakeups, ledger: Ledger, leases: Leases) -> None:
        self.ledger = ledger
        self.leases = leases
        self._wakeups = wakeups
        self._stage = Stage.IDLE
        self._asked = 0
        self._brpop_sent_at: float | None = None
        self._waiting_since = 0.0
        self._keys: list[str] = []
        self._queues: list[str] = []
        self._was_woken = False
        self._tracked: Any = None
        self._is_script_loaded = True  # see Wakeups.check
        #: Answers to come before that to the take.
        self._ahead = 0
        #: The tags that the last take acknowledges.
        self._acked: list[str] = []
        #: What is to go back, as its queue was cancelled meanwhile.
        self._stray: list[str] = []
        #: What was in the answer and has not reached the consumer, by queue.
        self._undelivered: deque[tuple[str, bytes, dict[str, Any] | None]] = deque()
        super().__init__(connection)
        self._holdings = Holdings(self)
        self._record = Record(f"{self.global_keyprefix}{self.unacked_key}")
        connection.channels.append(self)
        wakeups.channels.add(self)

    def hand_over(self) -> tuple[dict[str, Any], LostTake | None]:
        """The connection is lost: give up what is unacknowledged without restoring it.

        Returns it by tag, None for what has not become a message, and the take that is open.
        """
        self._in_poll = False  # or closing would read, and run, what is to be recovered
        self.ledger.take_back(self._acked)
        self.qos._flush()
        messages = {**self.qos._delivered, **dict.fromkeys(self._stray)}
        self.qos._delivered.clear()
        while self._undelivered:
            _, _, envelope = self._undelivered.popleft()
            if envelope is not None:
                messages[envelope["properties"]["delivery_tag"]] = None
        return messages, self._record.lost

    def recover(self, lost: LostTake) -> list[str]:
        """The tags of what a lost take has taken; it takes nothing from now on."""
        with self.conn_or_acquire() as client:
            return lost.close(client, self._kept)

    def go_on_with(self, tag: str, message: Any) -> None:
        """Count, and later acknowledge, a message that an earlier connection has taken."""
        message.channel = self
        virtual.QoS.append(self.qos, message, tag)

    def wake(self, keys: set[str] | None) -> None:
        """Some keys have changed, None means any: look whether they are of this channel."""
        if keys is not None and keys.isdisjoint(self._keys):
            return
        if self._stage is Stage.WAITING:
            self._stage, self._in_poll = Stage.IDLE, False
        else:
            self._was_woken = True

    def take(self) -> None:
        """Ask for what fits into the free slots, now: the hub would come to it later."""
        if self._in_poll or not self.active_queues:
            return
        # Not without a free slot: where its connection is lost, another would be made for nothing.
        if self.qos.can_consume():
            self.connection.cycle._register_BRPOP(self)  # kombu 5.6 and 5.7

    def _update_queue_cycle(self) -> None:
        """A queue was added or cancelled (kombu 5.6, 5.7): what is waited for has changed."""
        super()._update_queue_cycle()
        self.wake(None)

    @property
    def is_answered_soon(self) -> bool:
        """Whether Redis owes an answer, after which a take may go out with acks."""
        return self._stage is Stage.TAKING

    def flush_acks(self) -> None:
        """Remove what is settled, in one step; kept for the next connection when this fails."""
        self.ledger.flush(self._remove)

    def holds(self, message: Any) -> bool:
        """Whether it can be put back: broadcasts are gone when they come (kombu 5.6 and 5.7)."""
        return (message.delivery_info or {}).get("exchange") not in self._fanout_to_queue

    def put_back(self, tags: list[str], *, at_head: bool = True) -> None:
        """Give back what this node still holds, in the order in which it was taken."""
        self._holdings.put_back(self.leases.current.id, tags, at_head=at_head)

    def give_back(self, tags: list[str]) -> None:
        """Put back what was fetched and has not started; it counts no more."""
        self._holdings.put_back(self.leases.current.id, tags, may_have_run=False)
        for tag in tags:
            virtual.QoS.ack(self.qos, tag)

    def _remove(self, tags: list[str]) -> None:
        self._holdings.acknowledge(self.leases.current.id, tags)

    def maybe_refresh_binding_expiry(self) -> None:
        """Called every second or so (kombu 5.7): now and then look whether a wake-up was lost.

        It can be, where a firewall forgets a connection on which nothing is said.
        """
        super().maybe_refresh_binding_expiry()
        waited = monotonic() - self._waiting_since
        if self._stage is Stage.WAITING and 0 < self.health_check_interval <= waited:
            self.wake(None)

    def close(self) -> None:
        self._wakeups.channels.discard(self)
        super().close()

    def _brpop_start(self, timeout: float | None = None) -> None:
        free = min(self.qos.can_consume_max_estimate(), LARGEST_TAKE)
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or not free or self._wakeups.client_id is None:
            return
        if not self.leases.current.is_fresh:  # it wakes us when it is
            self.leases.ask()
            return
        self._take_up_lost()
        connection = self.client.connection
        # kombu drops a connection on which an answer is overdue (maybe_check_brpop_health).
        self._in_poll, self._brpop_sent_at = connection, monotonic()
        self._stage, self._asked, self._queues = Stage.TAKING, free, list(queues)
        self._keys = [
            f"{self.global_keyprefix}{self._q_for_pri(queue, priority)}"
            for priority in self.priority_steps
            for queue in queues
        ]
        self._send_preparations(connection)
        self._send_take(connection)

    def _send_preparations(self, connection: Any) -> None:
        """Have Redis tell the wake-ups' connection of changes to the keys read on this one."""
        self._ahead = 0
        tracked = (connection._sock, self._wakeups.client_id)
        if self._tracked != tracked:
            self._tracked = tracked
            redirect = ("REDIRECT", self._wakeups.client_id, "NOLOOP")
            self._send(connection, "CLIENT", "TRACKING", "ON", *redirect)
            self._ahead += 1
        if not self._is_script_loaded:
            self._is_script_loaded = True
            self._send(connection, "SCRIPT LOAD", TAKE)
            self._ahead += 1

    def _send_take(self, connection: Any) -> None:
        """Ask for what fits into the free slots, and tell what is settled."""
        lease = self.leases.current.id
        keys = [*self._holdings.keys(lease), self._record.key, *self._keys]
        in_turn = 1 if self.queue_order_strategy == "round_robin" else 0
        self._record.begin()
        self._was_woken = False
        self.ledger.take_back(self._acked)  # when the last take was not answered
        self._acked = self.ledger.send(LARGEST_ACK)
        sizes = (self._asked, lease, len(self._queues), in_turn, self._record.number, self._kept)
        self._send(connection, "EVALSHA", TAKE_SHA, len(keys), *keys, *sizes, *self._acked)

    @staticmethod
    def _send(connection: Any, *command: Any) -> None:
        # Without redis-py's own check, which waits for an answer to a PING.
        connection.send_command(*command, check_health=False)

    def _brpop_read(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            if self._stage is Stage.WAITING and not connection.can_read(timeout=0):
                raise kombu_redis.Empty
            if self._stage is Stage.TAKING and not self.leases.current.is_fresh:
                # What is in it may be others' by now. It is given back where it is not.
                raise exceptions.ConnectionError("the answer to a take came after its lease")
            self._read_preparations(connection)
            reply = connection.read_response()
        except NoScriptError:  # the server was restarted, or its scripts flushed
            self._is_script_loaded = self._record.is_unanswered = False
            self._rest()
            raise kombu_redis.Empty from None
        except self.connection_errors:
            self._rest()
            connection.disconnect()
            raise
        self._record.is_unanswered = False
        self.ledger.confirm(self._acked)
        self._acked = []
        if reply is None:
            self.leases.doubt()
            self._rest()
            raise kombu_redis.Empty
        return self._taken(reply)

    def _read_preparations(self, connection: Any) -> None:
        while self._ahead:
            self._ahead -= 1
            try:
                connection.read_response()
            except ResponseError as error:
                # The wake-ups' connection has gone, and its channel has not noticed yet.
                raise exceptions.ConnectionError(f"cannot be woken any more: {error}") from error

    def _taken(self, reply: list[Any]) -> bool:
        if len(reply) < self._asked * 2 and self._is_tracked:
            self._stage, self._brpop_sent_at = Stage.WAITING, None
            self._waiting_since = monotonic()
        else:
            self._rest()
        if not reply:
            raise kombu_redis.Empty
        messages = reply[1::2]
        for place, message, envelope in zip(
            reply[::2], messages, envelopes.read(messages), strict=True
        ):
            queue = self._queues[place % len(self._queues)]
            self._undelivered.append((queue, message, envelope))
        while self._undelivered:
            self._deliver(*self._undelivered.popleft())
        if self._stray:
            self.put_back(self._stray)
            self._stray = []
        return True

    def _deliver(self, queue: str, message: bytes, envelope: dict[str, Any] | None) -> None:
        if envelope is None:
            self._drop(queue, message)
            return
        tag = envelope["properties"]["delivery_tag"]
        if queue not in self.connection._callbacks:  # cancelled meanwhile (kombu 5.6 and 5.7)
            self._stray.append(tag)
            return
        self._queue_cycle.rotate(queue)
        try:
            self.connection._deliver(envelope, queue)
        except (OSError, exceptions.RedisError):
            raise
        except Exception:
            if tag in self.qos._delivered:
                raise
            self._drop(queue, message)  # kombu cannot make a message of it

    def _drop(self, queue: str, message: bytes) -> None:
        logger.critical("queue %s held what is no message, dropped: %.4096r", queue, message)
        for tag in envelopes.tags_in(message):  # the script may have registered it
            if (self._holdings.entry(tag) or b"").startswith(b"[" + message):
                self.ledger.add(tag)

    @property
    def _is_tracked(self) -> bool:
        """Whether the next change of a queue's key is told, and none was told already."""
        # A queue that was added while the script ran was not asked for.
        changed = self._was_woken or set(self._queues) != set(self.active_queues)
        return not changed and self._tracked[1] == self._wakeups.client_id

    def _rest(self) -> None:
        self._stage, self._in_poll = Stage.IDLE, False

    # -- takes whose answers are lost

    @property
    def _kept(self) -> int:
        """Seconds that a record is kept: later, what was taken has come back anyway."""
        return max(1, int(self.visibility_timeout))

    def _take_up_lost(self) -> None:
        """Give back what was in an answer that was overdue, when kombu has reconnected."""
        lost = self._record.lost
        if lost is not None:
            self.put_back(self.recover(lost))
            self._record.renew()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params = super()._connparams(asynchronous)
        # RESP3 would push to a tracking connection, between answers, that its redirection broke.
        return {**params, "protocol": 2} if asynchronous else params
