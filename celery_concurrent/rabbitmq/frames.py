"""Reading AMQP frames, as many as have arrived in one call.

py-amqp (5.4) asks the socket for a frame's header, for its payload and for its last byte, and sets
the socket's timeout before and after. A message is three frames, so that is nine reads for each,
and each lets other threads take the interpreter away. kombu (5.7) goes round its hub once for each
message. Here a read takes what is there, and the hub's turn handles all of it.

What always holds, on the consumer's thread, which alone touches this:

- bytes are handled in the order in which they came, whoever reads them: the hub's turn, or a method
  that waits for RabbitMQ's answer, within it or outside of it;
- before the hub sleeps, no whole frame is left (:meth:`FrameReader.handle_left`): the socket would
  not wake it for what was read already.
"""

from __future__ import annotations

import socket
from struct import unpack_from
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport

#: Bytes that one read takes at the most.
MOST = 65_536
#: Reads in one turn of the hub at the most: other sockets and timers want theirs.
READS = 4

_HEADER, _END = 7, 0xCE


class FrameBuffer:
    """Bytes that have come, and the frames in them."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._at = 0

    def add(self, data: bytes) -> None:
        """More have come."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def take(self) -> tuple[int, int, bytes] | None:
        """The next frame's type, channel and payload; None while it is not whole.

        Raises:
            UnexpectedFrame: it does not end as a frame does.
        """
        data, at = self._data, self._at
        if len(data) < at + _HEADER:
            return None
        type, channel, size = unpack_from(">BHI", data, at)
        end = at + _HEADER + size
        if len(data) <= end:
            return None
        if data[end] != _END:
            raise UnexpectedFrame(f"a frame ends with {data[end]:#04x} in the place of 0xce")
        self._at = end + 1
        return type, channel, data[at + _HEADER : end]


class FrameReader:
    """Reads for one connection of py-amqp's, from when it is made.

    Touches ``transport.read_frame``, ``_read_buffer`` and ``connection.on_inbound_frame`` (py-amqp
    5.4).

    Args:
        connection: py-amqp's, over plain TCP.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        transport = self._transport = connection.transport
        self._buffer = FrameBuffer(bytes(transport._read_buffer))
        transport._read_buffer = b""
        transport.read_frame = self.read_frame

    @staticmethod
    def reads(connection: Any) -> bool:
        """Whether this connection is one that it can read for."""
        return type(getattr(connection, "transport", None)) is TCPTransport

    def read_frame(self) -> tuple[int, int, bytes]:
        """For methods that wait: the next frame, within the timeout that the socket has.

        Raises:
            TimeoutError: it did not come; what has come of it is kept.
            OSError: the connection is gone.
        """
        while (frame := self._buffer.take()) is None:
            try:
                self._receive(0)
            except BlockingIOError:
                raise TimeoutError("no frame has come") from None
        return frame

    def on_readable(self) -> None:
        """Handle what has come: for the hub.

        Raises:
            OSError: the connection is gone.
        """
        if not self._connection.connected:
            raise RecoverableConnectionError("Socket was disconnected")
        for _ in range(READS):
            try:
                is_more = self._receive(socket.MSG_DONTWAIT) == MOST
            except (BlockingIOError, TimeoutError):
                return
            self.handle_left()
            if not is_more:
                return

    def handle_left(self) -> None:
        """Handle frames that have been read, by whomever."""
        while (frame := self._buffer.take()) is not None:
            self._connection.on_inbound_frame(frame)

    def _receive(self, flags: int) -> int:
        """Add what the socket has; returns how many bytes."""
        transport = self._transport
        try:
            data = transport.sock.recv(MOST, flags)
            if not data:
                raise OSError("Server unexpectedly closed connection")  # py-amqp's words
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:
            transport.connected = False
            raise
        self._buffer.add(data)
        return len(data)
