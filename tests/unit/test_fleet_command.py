"""``celery fleet`` told to do what it cannot: each message says what to do instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from celery_concurrent.autoscaler import mailbox

SOURCE = "from celery import Celery\napp = Celery('fleets', broker='memory://')\n"


@pytest.fixture(autouse=True)
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "unit_fleets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(mailbox, "ask", lambda app, command, arguments: [])
    yield
    sys.modules.pop("unit_fleets", None)


def refused(*words: str) -> str:
    done = CliRunner().invoke(celery, list(words))
    assert done.exit_code != 0
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def test_without_an_app_it_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "name the app: celery -A module fleet status" in refused("fleet", "status")
    assert "name the app: celery -A module fleet drain" in refused("fleet", "drain", "--all")

    def away(app: object, command: str, arguments: object) -> None:
        raise OperationalError("refused")

    monkeypatch.setattr(mailbox, "ask", away)
    assert "name the app: celery -A module fleet status" in refused("fleet", "status")


def test_where_none_answers_it_says_what_may_be_and_what_to_do() -> None:
    told = refused("-A", "unit_fleets", "fleet", "drain", "fetch")
    assert "Start one with `celery -A app autoscaler`" in told
    assert "celery -A app autoscaler" in told
    assert "celery -A app fleet drain --all" in told


def test_queues_beside_all_are_one_too_many() -> None:
    told = refused("-A", "unit_fleets", "fleet", "resume", "fetch", "--all")
    assert "name the queues, or --all, not both" in told


def test_without_rich_each_command_names_what_works_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    told = refused("-A", "unit_fleets", "fleet", "watch")
    assert "`fleet status --json` works without" in told
