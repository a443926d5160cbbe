"""Which delivery is that of an input that runs here or has ended here, and which only looks so."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.outcomes import Outcome
from celery_concurrent.pool.redeliveries import KEPT_SECONDS, Redeliveries
from celery_concurrent.sent import SENT_AT
from tests.services.inputs import make_input

CONNECTION, ANOTHER = object(), object()


class Request:
    """Celery keeps its requests in weak sets."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def request(
    tag: Any = "tag", connection: Any = CONNECTION, *, again: bool = True, **fields: Any
) -> Any:
    told: list[str] = []
    return Request(
        id="1",
        task_id="1",
        name="task",
        message=SimpleNamespace(delivery_tag=tag, channel=SimpleNamespace(connection=connection)),
        delivery_info={"redelivered": again},
        request_dict=fields,
        task=SimpleNamespace(acks_late=True),
        on_accepted=lambda *_: told.append("runs"),
        on_success=lambda _: told.append("has ended"),
        told=told,
    )


def running(first: Any) -> tuple[Redeliveries, Input]:
    redeliveries, input = Redeliveries(), make_input("1", first)
    redeliveries.may_be_given_back = True
    redeliveries.starts(input)
    return redeliveries, input


def ended(first: Any) -> Redeliveries:
    redeliveries, input = running(first)
    redeliveries.remember(input, Outcome(traced=(0, 1, 0.1)))
    redeliveries.stops(input)
    return redeliveries


SAME = [
    pytest.param({}, {}, id="virtual, its tag"),
    pytest.param({"tag": 1}, {"tag": 7, "connection": ANOTHER}, id="AMQP, a new connection"),
    pytest.param({"tag": 1, "connection": None}, {"tag": 1}, id="AMQP, the old one closed"),
    pytest.param({SENT_AT: 1.0, "retries": 2}, {SENT_AT: 1.0, "retries": 2}, id="all told"),
]
OTHERS = [
    pytest.param({}, {"tag": "another"}, id="virtual, another tag"),
    pytest.param({"tag": 1}, {"tag": 2}, id="AMQP, the same connection"),
    pytest.param({SENT_AT: 1.0}, {SENT_AT: 2.0}, id="another time"),
    pytest.param({"retries": 1}, {"retries": 2}, id="another try"),
    pytest.param({}, {"again": False}, id="not redelivered"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_a_redelivery_takes_the_place_of_the_lost_delivery(first: Any, second: Any) -> None:
    redelivery = request(**second)
    redeliveries, input = running(request(**first))
    assert redeliveries.take_over(redelivery)
    assert input.request is redelivery
    assert redelivery.told == ["runs"]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_a_redelivery_of_what_has_ended_is_settled_once(first: Any, second: Any) -> None:
    redeliveries, redelivery = ended(request(**first)), request(**second)
    assert redeliveries.take_over(redelivery)
    assert redelivery.told == ["has ended"]
    assert not redeliveries.take_over(request(**second))


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_another_message_of_the_same_id_is_none_of_it(first: Any, second: Any) -> None:
    other = request(**second)
    redeliveries, input = running(request(**first))
    assert not redeliveries.take_over(other)
    assert input.request is not other
    kept = ended(request(**first))
    assert not kept.take_over(other)
    assert other.told == []
    again = {**first, "connection": ANOTHER}
    assert kept.take_over(request(**again)), "it was forgotten"


def test_a_broker_may_deliver_again_on_a_connection_on_which_nothing_is_given_back() -> None:
    redelivery = request(2)
    redeliveries, input = running(request(1))
    redeliveries.may_be_given_back = False
    assert redeliveries.take_over(redelivery)
    assert input.request is redelivery


def test_an_outcome_is_of_no_use_when_its_redelivery_would_have_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redeliveries, later = ended(request()), time.monotonic() + KEPT_SECONDS + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not redeliveries.take_over(request())
