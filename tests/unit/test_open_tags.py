"""Which messages are acknowledged together: never one that is to stay open, none twice."""

from __future__ import annotations

from amqp.serialization import loads
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from celery_concurrent.rabbitmq.acks import OpenTags, frame


class Conversation(RuleBasedStateMachine):
    """A channel, and what RabbitMQ has open on it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = OpenTags()
        self.delivered = 0
        self.open: set[int] = set()
        self.settled: set[int] = set()

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            self.delivered += 1
            self.tags.deliver(self.delivered)
            self.open.add(self.delivered)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        left = sorted(self.open - self.settled)
        for tag in data.draw(st.sets(st.sampled_from(left))) if left else ():
            self.tags.settle(tag)
            self.settled.add(tag)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        left = sorted(self.open - self.settled)
        if left:
            tag = data.draw(st.sampled_from(left))
            self.tags.forget(tag)
            self.open.remove(tag)

    @rule()
    def flush(self) -> None:
        for tag, multiple in self.tags.take():
            assert tag in self.open  # RabbitMQ: PRECONDITION_FAILED, unknown delivery tag
            closed = {each for each in self.open if each <= tag} if multiple else {tag}
            assert closed <= self.settled
            self.open -= closed
            self.settled -= closed
        assert not self.settled

    @invariant()
    def nothing_is_remembered_that_is_closed(self) -> None:
        assert set(self.tags._open) == self.open


def test_what_is_said_closes_what_is_settled_and_nothing_else() -> None:
    run_state_machine_as_test(Conversation, settings=settings(max_examples=200, deadline=None))


def test_what_ends_in_order_is_said_in_one_frame() -> None:
    tags = OpenTags()
    for tag in range(1, 1001):
        tags.deliver(tag)
        tags.settle(tag)
    assert tags.take() == [(1000, True)]
    assert tags.take() == []


def test_one_that_stays_open_parts_those_below_from_those_above() -> None:
    tags = OpenTags()
    for tag in range(1, 8):
        tags.deliver(tag)
    for tag in (6, 1, 7, 2, 3):
        tags.settle(tag)
    assert tags.take() == [(3, True), (6, False), (7, False)]
    tags.settle(4)
    assert tags.take() == [(4, False)]


@given(st.integers(1, 65535), st.integers(1, 2**64 - 1), st.booleans())
def test_a_frame_says_what_py_amqp_would(channel: int, tag: int, multiple: bool) -> None:
    data = frame(channel, tag, multiple)
    assert (data[0], data[1:3], data[-1]) == (1, channel.to_bytes(2, "big"), 0xCE)
    assert data[3:7] == (len(data) - 8).to_bytes(4, "big")
    assert data[7:11] == bytes([0, 60, 0, 80])  # basic.ack
    assert loads("Lb", data, 11) == ([tag, multiple], len(data) - 1)
