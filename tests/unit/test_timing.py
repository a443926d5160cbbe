"""What a node counts of its inputs' waits, runs and ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry

from celery_concurrent import concurrent, sent
from celery_concurrent.pool.inputs import LOST, Input
from celery_concurrent.pool.outcomes import Outcome
from celery_concurrent.pool.timing import BUCKETS, MOST_TASKS, Timing

DONE = Outcome((0, None, 0.1))


def an_input(name: str = "shop.fetch", started_at: float = 100.0, **headers: Any) -> Input:
    made = Input(
        id="1",
        name=name,
        root_id="1",
        group=name,
        is_async=False,
        target=lambda: None,
        args=(),
        request=SimpleNamespace(request_dict=headers),
        token=1,
        soft_limit=None,
        hard_limit=None,
    )
    made.started_at = started_at
    return made


def failed(error: BaseException) -> Outcome:
    try:
        raise error
    except BaseException:
        return Outcome((1, ExceptionInfo(), 0.1))


def timing(now: float = 100.0, wall: float = 1000.0) -> Timing:
    return Timing(lambda: now, lambda: wall)


def test_waits_and_runs_are_counted_in_the_bucket_that_bounds_them() -> None:
    own = timing(now=100.25)
    one = an_input(concurrent_sent_at=999.6)  # and told of a quarter of a second after its start
    own.started(one)
    own.ended(one, DONE)
    told = own.fields()["timing"]["shop.fetch"]
    assert told["wait"][BUCKETS.index(0.25)] == 1
    assert told["run"][BUCKETS.index(0.25)] == 1  # bounds belong to their bucket
    assert (sum(told["wait"]), sum(told["run"])) == (1, 1)
    assert (told["wait_sum"], told["run_sum"]) == (0.15, 0.25)


def test_what_is_above_all_bounds_is_counted_too() -> None:
    own = timing(now=100.0 + 2 * BUCKETS[-1])
    own.ended(an_input(), DONE)
    assert own.fields()["timing"]["shop.fetch"]["run"][len(BUCKETS)] == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"concurrent_sent_at": "yesterday"}, None),
        ({"concurrent_sent_at": 1005.0}, 0.0),  # another machine's clock
        ({"concurrent_sent_at": 400.0, "eta": "1970-01-01T00:15:00+00:00"}, 100.0),
        ({"concurrent_sent_at": 990.0, "eta": "1970-01-01T00:15:00+00:00"}, 10.0),
        ({"concurrent_sent_at": 990.0, "eta": "soon"}, None),
    ],
)
def test_an_input_waits_from_when_it_was_sent_and_due(
    headers: dict[str, Any], seconds: float | None
) -> None:
    own = timing()
    own.started(an_input(**headers))
    told = own.fields()["timing"].get("shop.fetch")
    counted = None if told is None else (sum(told["wait"]), told["wait_sum"])
    assert counted == (None if seconds is None else (1, seconds))


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (DONE, "succeeded"),
        (failed(ValueError()), "failed"),
        (failed(Retry()), "retried"),
        (failed(Reject()), "rejected"),
        (failed(Ignore()), "ignored"),
        (Outcome(None, failed(ValueError()).traced[1]), "failed"),  # type: ignore[index]
    ],
)
def test_an_end_has_the_name_that_celery_gives_it(outcome: Outcome, name: str) -> None:
    own = timing()
    own.ended(an_input(), outcome)
    assert own.fields()["outcomes"] == {"shop.fetch": {name: 1}}


@pytest.mark.parametrize(
    ("reason", "dropped", "name"),
    [(LOST, True, "lost"), ("it was revoked", True, "cancelled"), ("a limit", False, "failed")],
)
def test_what_was_ended_from_outside_is_told_apart(reason: str, dropped: bool, name: str) -> None:
    own, one = timing(), an_input()
    one.ended, one.dropped = reason, dropped
    own.ended(one, DONE)
    assert own.fields()["outcomes"] == {"shop.fetch": {name: 1}}


def test_the_last_input_is_told() -> None:
    own = timing(now=103.0)
    assert own.fields()["last_input"] is None
    own.started(an_input())
    assert own.fields()["last_input"] == {"id": "1", "task": "shop.fetch", "seconds": 3.0}


def test_so_many_tasks_are_told_apart() -> None:
    own = timing()
    for number in range(MOST_TASKS + 10):
        own.ended(an_input(f"task-{number}"), DONE)
    assert len(own.fields()["timing"]) == MOST_TASKS


def test_inputs_of_concurrent_tasks_tell_when_they_were_sent() -> None:
    app = Celery("shop", broker="memory://")

    @app.task(name="timing.marked")
    @concurrent(max_inputs=2)
    def marked() -> None: ...

    @app.task(name="timing.plain")
    def plain() -> None: ...

    def headers_of(task: Any) -> dict[str, Any]:
        with app.connection_for_write() as connection:
            task.delay()
            message = connection.SimpleQueue("celery").get(timeout=5)
            message.ack()
            return dict(message.headers)

    assert marked.name == "timing.marked"  # evaluates what stands for it
    assert isinstance(headers_of(marked)[sent.SENT_AT], float)
    assert sent.SENT_AT not in headers_of(plain)
