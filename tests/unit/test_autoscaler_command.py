"""What ``celery autoscaler`` takes on its command line."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celery_concurrent.autoscaler import running
from celery_concurrent.autoscaler.command import autoscaler
from celery_concurrent.autoscaler.local.watch import Watcher


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[running.Options]:
    """The options of each autoscaler that would run."""
    found: list[running.Options] = []
    monkeypatch.setenv("CELERY_APP", "shop")
    monkeypatch.setattr(running, "run", lambda _app, _name, options: found.append(options))
    return found


def command(*words: str) -> Result:
    return CliRunner().invoke(autoscaler, words, obj=SimpleNamespace(app=None))


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "-1", "soon"])
def test_a_drain_timeout_that_is_no_number_of_seconds_is_refused(
    started: list[running.Options], given: str
) -> None:
    done = command("--drain-timeout", given)
    assert (done.exit_code, started) == (2, [])
    assert "'--drain-timeout'" in done.output
    assert given in done.output


def test_a_drain_timeout_may_be_none_at_all_or_years(started: list[running.Options]) -> None:
    for given in ("0", "1e9"):
        assert command("--drain-timeout", given).exit_code == 0
    assert [options.drain_timeout for options in started] == [0.0, 1e9]


def test_a_loglevel_that_is_none_is_refused_with_those_that_there_are(
    started: list[running.Options],
) -> None:
    done = command("-l", "blah")
    assert (done.exit_code, started) == (2, [])
    assert "'blah' is not one of" in done.output
    assert "WARNING" in done.output.upper()
    assert command("-l", "debug").exit_code == 0
    assert started[0].loglevel == "DEBUG"


def test_a_deadline_in_years_does_not_keep_ends_from_being_noticed() -> None:
    read, write = os.pipe()
    ticks: list[None] = []
    ended = threading.Event()

    def tick() -> float:
        ticks.append(None)
        return 1e9

    def end() -> None:
        os.read(read, 1)
        ended.set()

    watcher = Watcher(tick)
    source: Any = SimpleNamespace(fileno=lambda: read)
    watcher.add(source, end)
    watcher.start()
    os.write(write, b"x")
    assert ended.wait(5)
    watcher.close()
    assert len(ticks) < 10
    os.close(read)
    os.close(write)
