"""Leases: what a node has taken from Redis is its own while it renews, and goes back when it dies.

A node takes inputs under a *lease*, which lapses when it is not renewed for some seconds. What
always holds, by scripts (:mod:`.scripts`, :mod:`.holdings`) that read no clock but Redis':

- Whoever takes an input, a node or a stock worker, gives it a score in kombu's
  ``unacked_index``. A node also notes the score among its holdings, in the same step. It holds
  the input while the two are the same; only then does it acknowledge it or put it back.
- Nothing is taken under a lease that has run out or was lost.
- A lease that has run out is *late*: its node may still renew it, when nothing that it holds
  was touched meanwhile. It is *lost* from the step in which another node finds it lapsed. Lost
  stays lost: the node begins another lease, and holds nothing under it.
- What a lost lease held is put back, by whoever has found it; each input once, as it is held
  until then. It goes to the head of the queue that it came from, the oldest first, marked as
  redelivered like what kombu restores.
- A node that cannot say that its lease lives (it is paused, or Redis is away) lets no outcome
  be stored: it waits for Redis to tell. This is a look at a clock while all is well.

Stock workers on the same keys know no leases: they restore what has had its score for longer
than the visibility timeout. So scores of what is held are renewed as well, well within that
timeout, and a lease is never longer than it. An input that the node has lost sight of (the
answer to a take that could not be recovered) is not renewed, and comes back by that timeout.

When Redis was away for longer than the lease, all leases are late at once, and every node comes
back to find the others'. So a node reaps only after its own lease has lived for half its length
without a gap. What Redis has lost with its data is no lease lost: it is registered anew.

One thread, with one connection of its own, renews and reaps: the consumer's may block for
longer than a lease, and is the one that waits while a connection is lost. At a stop it goes on
until all inputs have settled; then the lease ends, and what is left is put back at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from celery.utils.log import get_logger

from celery_concurrent.redis.holdings import REMEMBERED, Holdings
from celery_concurrent.redis.lease import Lease, clock

logger = get_logger(__name__)

#: Renewals within one lease: three may fail.
RENEWALS = 4
#: Seconds between two tries while Redis cannot be reached, at the most.
TRY_AGAIN = 1.0
#: Seconds that a stop waits for the lease to be ended.
LEAVE_WITHIN = 1.0


class Work(Protocol):
    """Runs the thread's function."""

    def submit(self, work: Callable[[], None]) -> None:
        """Run it elsewhere."""


class Leases:
    """Keeps a node's lease, and puts back what other nodes' lapsed leases held.

    An autoscaler keeps one that holds nothing, and so takes part in the latter.

    Args:
        name: of the node.
        seconds: how long a lease lives without renewal; less where the visibility timeout is.
        thread: runs the renewals.
        hop: makes a call that blocks, from wherever an input runs.
        changed: called, on the thread, when the lease lives again or was lost.
        held: the tags of what the node has, whose scores are renewed.
        gives_up: whether a lease that cannot be renewed is given up: the node is stopping.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        *,
        thread: Work,
        hop: Callable[[Callable[[], bool]], bool] = lambda call: call(),
        changed: Callable[[], None] = lambda: None,
        held: Callable[[], Iterable[str]] = tuple,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name
        self._wanted = self._seconds = seconds
        self._thread = thread
        self._hop = hop
        self._on_change = changed
        self._held = held
        self._gives_up = gives_up
        self._connect: Callable[[float], Any] | None = None
        self._connection: Any = None
        self._holdings: Holdings | None = None
        self._refresh_every = 0.0
        self._refreshed_at = 0.0
        self._unbroken_since = 0.0
        self._is_told = False
        self._is_moved = False
        self._changed = threading.Condition()
        self._is_asked = False
        self._runs = False
        self._closing = False
        self.current = self._new()

    # -- from any thread

    def start(self, connect: Callable[[float], Any]) -> None:
        """Renew from now on; or, again, over another connection: that may be to another server.

        Args:
            connect: makes a kombu connection to Redis whose answers may take so many seconds.
        """
        with self._changed:
            self._connect = connect
            self._is_moved = True
            if not self._runs and not self._closing:
                self._runs = True
                self._thread.submit(self._run)

    def begin(self) -> None:
        """Begin another lease, after the last was lost and what it held is given up."""
        with self._changed:
            self.current = self._new()
        self.ask()

    def ask(self) -> None:
        """Have the lease renewed now."""
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()

    def doubt(self) -> None:
        """Redis says that the lease does not live."""
        with self._changed:
            self.current.fresh_until = 0.0
        self.ask()

    def close(self) -> None:
        """End the lease: all that was held is settled, or is to go back."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._runs, LEAVE_WITHIN)

    @property
    def is_settled(self) -> bool:
        """Whether Redis has been there for long enough that lapsed leases tell of dead nodes."""
        return self.current.is_fresh and self._may_reap

    def _new(self) -> Lease:
        return Lease(self._name, self._confirm)

    def _confirm(self, lease: Lease) -> bool:
        return self._hop(lambda: self._wait_for(lease))

    def _wait_for(self, lease: Lease) -> bool:
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: lease.is_fresh or lease.is_lost or not self._runs)
        return lease.is_fresh

    # -- on the thread

    def _run(self) -> None:
        while not self._closing:
            failed = False
            try:
                self._turn()
            except Exception as error:  # whatever goes wrong, renewing goes on
                failed = True
                self._fail(error)
            with self._changed:
                # While Redis is away, asking changes nothing.
                self._changed.wait_for(
                    lambda: self._closing or (self._is_asked and not failed),  # noqa: B023
                    min(TRY_AGAIN, self._interval) if failed else self._interval,
                )
                self._is_asked = False
        with suppress(Exception):  # it lapses by itself
            if self._holdings is not None:
                self._holdings.leave(self.current.id)
        self._disconnect()
        with self._changed:
            self._runs = False
            self._changed.notify_all()

    @property
    def _interval(self) -> float:
        return self._seconds / RENEWALS

    @property
    def _may_reap(self) -> bool:
        return clock() - self._unbroken_since >= self._seconds / 2

    def _turn(self) -> None:
        """Renew; then what may take longer."""
        if self._is_moved:
            self._is_moved = False
            self._disconnect()
        holdings = self._connected()
        due = self._renew(holdings)
        if clock() - self._refreshed_at >= self._refresh_every:
            self._refreshed_at = clock()
            holdings.refresh(self.current.id, list(self._held()))
        if due and self._may_reap:
            renewed_at = clock()
            for _ in holdings.put_back_lapsed():
                if clock() - renewed_at >= self._interval:
                    renewed_at = clock()
                    self._renew(holdings)

    def _renew(self, holdings: Holdings) -> int:
        """Renew the lease, or find it lost; returns how many others have run out."""
        lease, sent_at = self.current, clock()
        if lease.is_lost:
            return 0
        state, due = holdings.renew(lease.id, self._seconds)
        if state != "live":
            self._unbroken_since = sent_at
        if state == "late":
            state = "lost"
            if holdings.look_through(lease.id):
                sent_at = clock()
                state, due = holdings.renew(lease.id, self._seconds, looked_through=True)
        if state == "lost" or (state == "new" and self._is_forgotten(lease)):
            self._lose(lease)
            return 0
        self._is_told = False
        was_fresh = lease.is_fresh
        with self._changed:
            lease.fresh_until = sent_at + self._seconds
            self._changed.notify_all()
        if not was_fresh:
            self._on_change()
        return due

    @staticmethod
    def _is_forgotten(lease: Lease) -> bool:
        """Whether Redis may have forgotten that this lease was lost, which it keeps for long."""
        return lease.fresh_until > 0 and clock() - lease.fresh_until > REMEMBERED / 2

    def _lose(self, lease: Lease) -> None:
        logger.error("the lease %s has lapsed: its inputs are others' by now", lease.id)
        with self._changed:
            lease.is_lost = True
            self._changed.notify_all()
        self._on_change()

    def _connected(self) -> Holdings:
        if self._holdings is None:
            assert self._connect is not None
            self._connection = self._connect(self._wanted / 2)
            self._connection.connect()
            channel = self._connection.channel()
            visible = max(1.0, float(channel.visibility_timeout))
            self._seconds = min(self._wanted, visible)
            self._refresh_every = visible / RENEWALS
            self._holdings = Holdings(channel)
        return self._holdings

    def _fail(self, error: Exception) -> None:
        self._disconnect()
        lease = self.current
        if not self._is_told:
            self._is_told = True
            logger.warning("the lease %s cannot be renewed: %s", lease.id, error)
        if self._gives_up() and not lease.is_fresh:
            self._lose(lease)

    def _disconnect(self) -> None:
        connection, self._connection, self._holdings = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()


def quickly(connection: Any, timeout: float, **others: Any) -> Any:
    """A kombu connection to the same broker whose answers take ``timeout`` seconds at most.

    Args:
        connection: to the broker.
        timeout: seconds.
        others: options of kombu's connections; ``alternates=[]`` keeps it to the server that
            ``connection`` has found.
    """
    given = connection.transport_options or {}
    options = {
        name: min(given.get(name) or timeout, timeout)
        for name in ("socket_timeout", "socket_connect_timeout")
    }
    return connection.clone(transport_options={**given, **options}, **others)
