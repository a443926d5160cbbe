"""``celery fleet record``: what task events say of an input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_concurrent.autoscaler.recording import Recorder
from celery_concurrent.fleets import Fleet
from celery_concurrent.limits import Limits

FLEET = Fleet(queue="fetch", tasks=("shop.fetch",), limits=Limits(max_inputs=3))


def recorded(*events: tuple[Any, ...], recorder: Recorder | None = None) -> list[tuple[Any, Any]]:
    """Arrival and run time of the inputs of these events: (type, timestamp, fields)."""
    recorder = recorder or Recorder(FLEET)
    found = []
    for kind, at, *more in events:
        event = {"type": f"task-{kind}", "timestamp": at, "uuid": "u", **(more[0] if more else {})}
        line = recorder.note(event)
        if line is not None:
            assert line["task"] == "shop.fetch"
            found.append((line["arrival_s"], line["seconds"]))
    return found


NAME = {"name": "shop.fetch"}
SENT = {**NAME, "queue": "fetch"}


def test_an_input_arrives_when_it_is_sent_and_runs_for_what_its_node_says() -> None:
    assert recorded(
        ("sent", 1.0, SENT), ("received", 5.0, NAME), ("started", 6.0), ("succeeded", 9.5, RAN)
    ) == [(1.0, 3.25)]


RAN = {"runtime": 3.25}


def test_without_publishers_events_it_arrives_when_a_node_fetches_it() -> None:
    recorder = Recorder(FLEET)
    assert recorded(
        ("received", 5.0, NAME), ("started", 6.0), ("failed", 9.5), recorder=recorder
    ) == [(5.0, 3.5)]
    assert (recorder.sent, recorder.ran, recorder.ended, recorder.left) == (False, True, 1, 0)


def test_inputs_of_other_tasks_and_other_queues_are_left_out() -> None:
    assert not recorded(
        ("received", 1.0, {"name": "shop.other"}), ("started", 1.0), ("succeeded", 2.0, RAN)
    )
    assert not recorded(("sent", 1.0, {**NAME, "queue": "other"}), ("succeeded", 2.0, RAN))


def test_each_try_is_an_input_and_the_next_one_is_sent_before_the_first_has_ended() -> None:
    recorder = Recorder(FLEET)
    assert recorded(
        ("sent", 1.0, SENT),
        ("received", 1.5, NAME),
        ("started", 2.0),
        ("sent", 4.0, {**SENT, "eta": "1970-01-01T00:00:30+00:00"}),
        ("retried", 5.0),
        ("received", 6.0, NAME),
        ("started", 30.5),
        ("succeeded", 33.0, RAN),
        recorder=recorder,
    ) == [(1.0, 3.0), (30.0, 3.25)]
    assert recorder.left == 0


def test_an_input_that_two_nodes_fetched_counts_once() -> None:
    assert recorded(
        ("received", 1.0, NAME),
        ("started", 2.0),
        ("received", 60.0, NAME),
        ("started", 61.0),
        ("rejected", 62.0),
        ("succeeded", 64.0, RAN),
    ) == [(1.0, 1.0)]


def test_an_input_that_never_ran_or_has_not_ended_is_no_line() -> None:
    recorder = Recorder(FLEET)
    assert not recorded(("sent", 1.0, SENT), ("revoked", 2.0), recorder=recorder)
    assert (recorder.left, recorder.ended) == (0, 0)
    assert not recorded(("sent", 1.0, SENT), ("started", 2.0), recorder=recorder)
    assert (recorder.left, recorder.ended) == (1, 0)


def test_what_ended_and_was_never_heard_of_before_is_no_line() -> None:
    assert not recorded(("started", 1.0), ("succeeded", 2.0, RAN))


# The command

SOURCE = """
from celery import Celery
from celery_concurrent import concurrent

app = Celery("record", broker="redis://127.0.0.1:1/0", set_as_current=False)

@app.task(queue="fetch")
@concurrent(max_inputs=3)
async def fetch(url): ...
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Any) -> Iterator[Path]:
    """The folder of an app whose broker is not there."""
    (tmp_path / "unit_record.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("unit_record", None)


def run(*words: str) -> Result:
    return CliRunner().invoke(celery, ["-A", "unit_record", "fleet", "record", *words])


def test_a_file_that_is_there_is_never_written_over(shop: Path) -> None:
    (shop / "trace").write_text("dear")
    done = run("--trace", "trace")
    assert (done.exit_code, (shop / "trace").read_text()) == (1, "dear")
    assert "Error: trace is there already: name another file" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trace", "no/where"), "cannot write to no/where"),
        (("other", "--trace", "trace"), "queue 'other' has no fleet"),
        (("--trace", "trace", "--seconds", "-1"), "-1.0 is not in the range x>=0"),
        ((), "Missing option '--trace'"),
    ],
)
def test_what_is_wrong_is_told_and_leaves_no_file(
    shop: Path, words: tuple[str, ...], told: str
) -> None:
    before = sorted(shop.iterdir())
    done = run(*words)
    assert done.exit_code in (1, 2)
    assert told in done.stderr
    assert sorted(shop.iterdir()) == before
