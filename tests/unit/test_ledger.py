"""Acks are sent once Redis takes them, and none is forgotten."""

from __future__ import annotations

import pytest

from celery_concurrent.redis.ledger import Ledger


def test_what_is_settled_is_sent_together_and_once() -> None:
    ledger = Ledger()
    for tag in "ab":
        ledger.add(tag)
    sent: list[list[str]] = []
    ledger.flush(sent.append)
    ledger.flush(sent.append)
    assert sent == [["a", "b"]]


def test_what_could_not_be_sent_is_kept() -> None:
    ledger = Ledger()
    ledger.add("a")

    def fail(tags: list[str]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        ledger.flush(fail)
    assert "a" in ledger


def test_an_ack_that_comes_between_two_overlapping_flushes_is_kept() -> None:
    ledger = Ledger()
    ledger.add("a")

    def flush_within(tags: list[str]) -> None:
        ledger.flush(lambda _: None)
        ledger.add("b")

    ledger.flush(flush_within)
    assert "a" not in ledger
    assert "b" in ledger


def test_what_is_on_its_way_is_not_sent_again_until_it_is_taken_back() -> None:
    ledger = Ledger()
    for tag in "abc":
        ledger.add(tag)
    assert ledger.send(2) == ["a", "b"]
    assert ledger.send(2) == ["c"]
    ledger.confirm(["a"])
    ledger.take_back(["b", "c"])
    assert "a" not in ledger
    assert ledger.send(5) == ["b", "c"]


def test_a_flush_sends_what_is_on_its_way_too() -> None:
    ledger = Ledger()
    ledger.add("a")
    ledger.send(1)
    sent: list[list[str]] = []
    ledger.flush(sent.append)
    assert sent == [["a"]]
    assert ledger.send(1) == []


def test_it_tells_what_is_unconfirmed_and_what_is_unsent() -> None:
    ledger = Ledger()
    for tag in "ab":
        ledger.add(tag)
    ledger.send(1)
    assert (len(ledger.tags), ledger.unsent) == (2, 1)
    ledger.confirm(["a"])
    assert (len(ledger.tags), ledger.unsent) == (1, 1)
