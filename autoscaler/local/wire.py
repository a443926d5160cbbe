"""What the autoscaler and its template say to each other: JSON, and descriptors beside it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

#: A message arrives whole or not at all, so none may be longer than the socket takes at once.
LARGEST = 128 * 1024
_MOST_DESCRIPTORS = 128


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep messages apart, and notice when the other one is gone."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send a message with copies of these descriptors.

    Raises:
        OSError: the other end is gone, or the message is too long.
    """
    socket.send_fds(end, [json.dumps(message).encode()], fds)


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None when the other end is gone.

    Raises:
        TimeoutError: there was none within the socket's timeout.
    """
    try:
        data, fds, _, _ = socket.recv_fds(end, LARGEST, _MOST_DESCRIPTORS)
    except ConnectionError:
        return None
    return (json.loads(data), fds) if data else None
