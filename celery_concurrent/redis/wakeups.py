"""Hearing from Redis that a queue has changed."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Protocol

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from celery_concurrent.redis.scripts import TAKE


class Sleeper(Protocol):
    """What waits for keys to change."""

    def wake(self, keys: set[str] | None) -> None:
        """These keys have changed; None means any."""

    def take(self) -> None:
        """Look what is there, if woken."""


class Wakeups(kombu_redis.Channel):
    """Hears which tracked keys have changed, and wakes the channels that wait for them.

    Its listening connection speaks RESP2, in which Redis publishes invalidations to the
    connection that tracking was redirected to.

    Args:
        connection: the kombu transport.
        has_hub: whether a hub runs, which other threads can wake. Without one the consumer
            sleeps in kombu's poller, and :meth:`ring` wakes it when a slot is free again.
    """

    INVALIDATIONS = "__redis__:invalidate"

    def __init__(self, connection: Any, *, has_hub: bool) -> None:
        self.channels: set[Sleeper] = set()
        self.client_id: int | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None
        super().__init__(connection)
        connection.channels.append(self)
        self.active_fanout_queues.add(self.INVALIDATIONS)
        if not has_hub:
            self._hang_bell(connection.cycle)

    def ring(self) -> None:
        """Let the consumer look for free slots; from any thread."""
        if self._bell is not None:
            with suppress(OSError):  # rung often enough already, or closed
                self._bell[1].send(b"\0")

    def close(self) -> None:
        if self._bell is not None:
            reader, writer = self._bell
            self._bell = None
            with suppress(AttributeError, KeyError, ValueError, OSError):
                self.connection.cycle._fd_to_chan.pop(reader.fileno(), None)
                self.connection.cycle.poller.unregister(reader.fileno())
            reader.close()
            writer.close()
        super().close()

    def _hang_bell(self, cycle: Any) -> None:
        reader, writer = self._bell = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self.handlers["BELL"] = self._rung
        cycle._fd_to_chan[reader.fileno()] = (self, "BELL")
        cycle.poller.register(reader.fileno(), cycle.eventflags)

    def _rung(self) -> None:
        if self._bell is not None:
            with suppress(OSError):
                self._bell[0].recv(4096)

    def check(self) -> None:
        """Raise what Redis says when it cannot track keys or run scripts, or does not let us."""
        with self.conn_or_acquire() as client:
            client.execute_command("CLIENT", "TRACKING", "OFF")
            client.script_load(TAKE)
            with client.pubsub() as listener:
                listener.subscribe(self.INVALIDATIONS)
                listener.parse_response()

    def _get_client(self) -> Any:
        return redis.Redis  # the name of Redis' own channel takes no global_keyprefix

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "protocol": 2}

    def _subscribe(self) -> None:
        connection = self.subclient.connection
        if connection._sock is None:
            connection.connect()
        connection.send_command("CLIENT", "ID")
        self.client_id = int(connection.read_response())
        self._in_listen = connection
        self.subclient.subscribe(self.INVALIDATIONS)
        self._tell(None)

    def _receive(self) -> bool:
        listener = self.subclient
        heard = False
        while True:
            try:
                reply = listener.parse_response()
            except self.connection_errors:
                self._in_listen, self.client_id = None, None
                raise
            if isinstance(reply, list) and bytes_to_str(reply[0]) == "message":
                heard = True
                self._tell(reply[2])
                for channel in self.channels:
                    channel.take()
            if listener.connection is None or not listener.connection.can_read(timeout=0):
                break
        return heard

    def _tell(self, keys: list[bytes] | None) -> None:
        """Wake the channels that wait for these keys; Redis says None when it lost count."""
        changed = None if keys is None else {bytes_to_str(key) for key in keys}
        for channel in self.channels:
            channel.wake(changed)
