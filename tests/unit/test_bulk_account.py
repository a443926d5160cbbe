"""Where the inputs of a map are, whenever somebody looks."""

from __future__ import annotations

from celery_concurrent.bulk.account import Account
from celery_concurrent.bulk.sending import Chunk
from celery_concurrent.bulk.template import Draft


def chunk_of(*ids: str) -> Chunk:
    return Chunk([Draft(id, b"", {}, {}) for id in ids])


def test_who_looks_while_a_chunk_is_sent_changes_nothing() -> None:
    account, chunk = Account(), chunk_of("a", "b", "c", "d")
    account.follow(chunk, [0, 1, 2, 3], str.upper)
    chunk.write("a")
    chunk.confirm("a")
    chunk.write("b")
    chunk.refuse("c")
    for _ in range(2):
        assert account.seen() == {"published": {0: "A"}, "uncertain": {1: "B"}, "refused": {2: "C"}}
    for id in "bd":
        chunk.write(id)
        chunk.confirm(id)
    account.settle()
    assert account.published == {0: "A", 1: "B", 3: "D"}
    assert (account.uncertain, account.refused) == ({}, {2: "C"})


def test_an_input_that_is_half_booked_is_in_one_place() -> None:
    account = Account()
    account.uncertain[0] = account.published[0] = "A"
    assert account.seen() == {"published": {0: "A"}, "uncertain": {}, "refused": {}}


def test_what_was_handed_out_stays_so() -> None:
    account, chunk = Account(), chunk_of("a")
    account.follow(chunk, [0], str.upper)
    chunk.confirm("a")
    account.settle()
    del account.published[0]
    assert account.seen()["published"] == {}
    error = account.error("not all")
    assert (error.published, error.uncertain, error.refused) == ([], [], [])
