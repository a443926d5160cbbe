"""The poller of a consumer without a hub."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from kombu.utils.eventio import READ

from celery_concurrent.redis.polling import OpenPoller

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def poller() -> OpenPoller:
    return OpenPoller()


def test_what_can_be_read_is_told(poller: OpenPoller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours, READ)
    assert poller.poll(0) == []
    theirs.send(b"x")
    assert poller.poll(0) == [(ours.fileno(), READ)]


def test_a_closed_socket_is_forgotten_though_its_number_lives_on(
    poller: OpenPoller, pair: Pair
) -> None:
    closed, _ = socket.socketpair()
    number = closed.fileno()
    poller.register(closed, READ)
    closed.close()
    ours, theirs = pair
    os.dup2(ours.fileno(), number)  # another's, who alone may wait for it
    try:
        theirs.send(b"x")
        assert poller.poll(0) == []
    finally:
        os.close(number)


def test_what_is_unregistered_by_its_number_is_not_polled(poller: OpenPoller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours, READ)
    poller.unregister(ours.fileno())
    theirs.send(b"x")
    assert poller.poll(0) == []
    poller.register(ours, READ)
    assert poller.poll(0) == [(ours.fileno(), READ)]


def test_a_socket_can_be_unregistered_after_it_was_closed(poller: OpenPoller) -> None:
    closed, _ = socket.socketpair()
    poller.register(closed, READ)
    closed.close()
    poller.unregister(closed)
    assert poller.poll(0) == []
