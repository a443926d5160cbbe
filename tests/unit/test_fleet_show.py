"""What ``fleet status`` says of a fleet whose nodes crash."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from celery_concurrent.autoscaler import show


def shown(**of_fleet: Any) -> list[str]:
    """The lines below the table and the reason of the last decision."""
    status = {
        "queue": "fetch",
        "state": "ok",
        **dict.fromkeys(("demand", "backlog", "reserved", "running"), 0),
        "counts": {},
        "desired": 1,
        "reason": "1 wanted",
        "overrides": {},
        "missing": None,
        "crashes": 0,
        "last_lines": [],
        "nodes": [],
        **of_fleet,
    }
    console = Console(width=200)
    with console.capture() as captured:
        console.print(show.fleets([status]))
    return [line.rstrip() for line in captured.get().splitlines()][3:]


def test_one_crash_is_told_with_the_lines_that_its_log_ends_with() -> None:
    assert shown(crashes=1, last_lines=["no weights"]) == [
        "fetch: a node has crashed; its log ends:",
        "    no weights",
    ]


def test_crashes_in_a_row_are_counted_and_the_last_one_is_shown() -> None:
    assert shown(crashes=4, last_lines=["no weights"]) == [
        "fetch: 4 nodes in a row have crashed; the last one's log ends:",
        "    no weights",
    ]


def test_no_lines_are_announced_where_there_are_none() -> None:
    assert shown(crashes=2) == ["fetch: 2 nodes in a row have crashed"]
