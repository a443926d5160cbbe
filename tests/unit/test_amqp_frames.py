"""AMQP frames out of what a socket brings."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.rabbitmq import frames as frames_module
from celery_concurrent.rabbitmq.frames import READS, FrameBuffer, FrameReader


def packed(type: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", type, channel, len(payload)) + payload + b"\xce"


frames = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(0, 65535), st.binary(max_size=300)),
    max_size=20,
)


@given(frames, st.integers(1, 400))
def test_frames_are_the_same_however_they_come(
    sent: list[tuple[int, int, bytes]], size: int
) -> None:
    data = b"".join(packed(*each) for each in sent)
    buffer, found = FrameBuffer(), []
    for at in range(0, len(data), size):
        buffer.add(data[at : at + size])
        while (frame := buffer.take()) is not None:
            found.append(frame)
    assert found == sent
    assert buffer.take() is None


def test_a_frame_that_does_not_end_is_an_error() -> None:
    buffer = FrameBuffer(packed(1, 0, b"abc")[:-1] + b"\x00")
    with pytest.raises(UnexpectedFrame, match="0x00"):
        buffer.take()


class Wire:
    """Both ends of a connection, of which a reader has one."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        transport = TCPTransport("localhost:1")
        transport.sock, transport.connected = ours, True
        transport._setup_transport()
        self.handled: list[Any] = []
        self.connection = SimpleNamespace(
            transport=transport, connected=True, on_inbound_frame=self.handled.append
        )
        transport._read_buffer = packed(8, 0, b"")  # what py-amqp has read before
        self.reader = FrameReader(self.connection)

    def close(self) -> None:
        self.connection.transport.sock.close()
        self.theirs.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def test_only_plain_connections_are_read_for(wire: Wire) -> None:
    assert FrameReader.reads(wire.connection)
    assert not FrameReader.reads(SimpleNamespace(transport=object()))
    assert not FrameReader.reads(None)


def test_a_turn_handles_all_that_has_come(wire: Wire) -> None:
    wire.theirs.sendall(packed(1, 1, b"a") + packed(2, 1, b"b") + packed(3, 1, b"c")[:-2])
    wire.reader.on_readable()
    assert wire.handled == [(8, 0, b""), (1, 1, b"a"), (2, 1, b"b")]
    wire.theirs.sendall(packed(3, 1, b"c")[-2:])
    wire.reader.on_readable()
    assert wire.handled[3:] == [(3, 1, b"c")]
    wire.reader.on_readable()  # nothing has come
    assert len(wire.handled) == 4


def test_a_turn_leaves_the_rest_of_a_flood_to_the_next(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "MOST", 80)
    wire.theirs.sendall(packed(3, 1, b"12") * 100)  # of ten bytes each
    wire.reader.on_readable()
    assert len(wire.handled) == 1 + READS * 8
    while len(wire.handled) < 101:
        before = len(wire.handled)
        wire.reader.on_readable()
        assert before < len(wire.handled) <= before + READS * 8


def test_what_waits_for_an_answer_reads_on_where_the_turn_has_stopped(wire: Wire) -> None:
    transport = wire.connection.transport
    assert transport.read_frame() == (8, 0, b"")
    wire.theirs.sendall(packed(1, 1, b"a") + packed(1, 1, b"b") + packed(1, 1, b"c")[:5])
    assert transport.read_frame() == (1, 1, b"a")
    wire.reader.handle_left()
    assert wire.handled == [(1, 1, b"b")]
    with transport.having_timeout(0.01), pytest.raises(TimeoutError):
        transport.read_frame()
    with transport.having_timeout(0), pytest.raises(TimeoutError):
        transport.read_frame()
    wire.theirs.sendall(packed(1, 1, b"c")[5:])
    assert transport.read_frame() == (1, 1, b"c")


def test_a_connection_that_ends_is_told_of(wire: Wire) -> None:
    wire.theirs.close()
    with pytest.raises(OSError, match="unexpectedly closed"):
        wire.reader.on_readable()
    assert not wire.connection.transport.connected
    wire.connection.connected = False
    with pytest.raises(RecoverableConnectionError):
        wire.reader.on_readable()
