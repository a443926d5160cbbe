"""How a snapshot looks, as a screen and as a line; and what the summary says."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from celery_concurrent.limits import Limits

pytest.importorskip("rich")

from rich.console import Console

from celery_concurrent.demo.fleet import Decision, Fleet, Node
from celery_concurrent.demo.measure import Ledger, Snapshot
from celery_concurrent.demo.summary import fixed_size, problems, summary
from celery_concurrent.demo.view import (
    History,
    PlainLines,
    bar,
    line,
    picture,
    shown,
    sparkline,
)

LIMITS = Limits(max_inputs=32, target_inputs=24)
ROWS = 6
UP = Decision(at=100.0, before=2, after=3, reason="60 inputs at 24 per node: 3 wanted")
DOWN = Decision(at=104.0, before=3, after=2, reason="30 inputs at 24 per node: 2 wanted")


def node(name: str, state: str, running: int) -> Node:
    return Node(name=name, state=state, running=running, device=f"GPU-simulated-{name[-1]}")


FLEET = Fleet(
    demand=60,
    backlog=28,
    running=32,
    desired=3,
    reason=UP.reason,
    nodes=(
        node("embed-0123456", "ready", 32),
        node("embed-0123457", "starting", 0),
        node("embed-0123458", "draining", 5),
    ),
    decisions=(UP,),
)


def snapshot(elapsed: float = 12.0, finished: int = 40, fleet: Fleet = FLEET) -> Snapshot:
    return Snapshot(
        elapsed=elapsed,
        total=1964,
        finished=finished,
        fleet=fleet,
        recent_throughput=31.4,
        recent_waits=(0.2, 0.4, 2.0),
        recent_latencies=(0.9, 1.4, 3.0),
        waits=(0.1, 0.3, 2.5),
        latencies=(0.8, 1.3, 3.5),
    )


def history(demands: int = 60) -> History:
    made = History(LIMITS)
    for second in range(demands):
        made.note(snapshot(elapsed=float(second), fleet=replace(FLEET, demand=second)))
    return made


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_screen_fits_eighty_columns_and_tells_all() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(picture(snapshot(), LIMITS, history(), ROWS))
    text = written(console)
    for word in (
        "60",
        "backlog 28, running 32",
        "1 ready nodes: target 24",
        "GPU-simulated-8",
        "starting",
        "draining",
        "32 of 32",
        "2 -> 3 nodes: 60 inputs at 24 per node: 3 wanted",
        "31.4/s",
        "0.40 s",
        "2.50 s",
        "latency p99",
        "1.40 s",
        "3.50 s",
        "40 of 1,964 inputs",
    ):
        assert word in text
    assert "…" not in text
    assert max(len(row) for row in text.splitlines()) <= 80


def test_screen_is_as_high_with_few_nodes_as_with_many() -> None:
    def height(nodes: tuple[Node, ...]) -> int:
        console = Console(file=io.StringIO(), width=80, color_system=None)
        seen = snapshot(fleet=replace(FLEET, nodes=nodes))
        console.print(picture(seen, LIMITS, history(), ROWS))
        return len(written(console).splitlines())

    assert height(()) == height(FLEET.nodes) == height(FLEET.nodes[:1] * ROWS)


def test_unknown_demand_is_told_and_drawn_as_the_last_known() -> None:
    made = history(3)
    made.note(snapshot(elapsed=3.0, fleet=replace(FLEET, demand=None, backlog=None)))
    assert made.demand == [0, 1, 2, 2]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    seen = snapshot(fleet=replace(FLEET, demand=None, backlog=None))
    console.print(picture(seen, LIMITS, made, ROWS))
    assert "unknown" in written(console)


def test_bar_shows_what_runs_above_target_in_another_colour() -> None:
    def cells(running: int) -> tuple[int, int, int]:
        text = bar(running, LIMITS)
        styles = {"green": 0, "yellow": 0, "dim": 0}
        for span in text.spans:
            styles[str(span.style)] += sum(c in "█░" for c in text.plain[span.start : span.end])
        return styles["green"], styles["yellow"], styles["dim"]

    assert cells(0) == (0, 0, 20)
    assert cells(24) == (15, 0, 5)
    assert cells(32) == (15, 5, 0)
    assert cells(40) == (15, 5, 0)


def test_bar_of_few_slots_has_a_cell_for_each() -> None:
    assert bar(1, Limits(max_inputs=2)).plain.startswith("█░ ")


def test_sparkline_leaves_blank_only_what_is_zero() -> None:
    assert sparkline((0, 1, 50, 100), 100) == " ▁▄█"
    assert sparkline((50,), 100) == "▄"
    assert sparkline((), 0) == ""
    assert sparkline((0, 0), 0) == "  "


def test_line_tells_demand_nodes_pace_and_waits() -> None:
    assert line(snapshot()) == (
        " 12.0 s  40/1964 done  demand 60 (backlog 28, running 32)  "
        "nodes 1 ready, 1 starting, 1 draining  31.4/s  wait p50 0.40 s  p99 2.00 s"
    )


def test_plain_lines_come_every_five_seconds_and_at_the_end() -> None:
    lines: list[str] = []
    plain = PlainLines(lines.append)
    for tenths in range(0, 120, 2):
        plain.show(snapshot(elapsed=tenths / 10))
    plain.show(snapshot(elapsed=12.2, finished=1964))
    assert [text.split(" s ")[0].strip() for text in lines] == ["0.0", "5.0", "10.0", "12.2"]


def test_plain_lines_tell_each_decision_of_the_replay_once() -> None:
    lines: list[str] = []
    plain = PlainLines(lines.append)
    plain.show(snapshot(elapsed=0.0))
    plain.show(snapshot(elapsed=1.0))
    plain.show(snapshot(elapsed=2.0, fleet=replace(FLEET, decisions=(UP, DOWN))))
    plain.show(snapshot(elapsed=3.0, fleet=replace(FLEET, decisions=(UP, DOWN))))
    assert lines[1:] == ["  2.0 s  3 -> 2 nodes: 30 inputs at 24 per node: 2 wanted"]


def test_console_without_a_terminal_gets_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=80)
    with shown(console, limits=LIMITS, rows=ROWS) as show:
        show(snapshot())
    assert written(console) == line(snapshot()) + "\n"


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with shown(console, limits=LIMITS, rows=ROWS) as show:
        show(snapshot())
    assert "\x1b[" not in written(console)


def test_terminal_gets_the_live_screen_and_its_cursor_back() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with shown(console, limits=LIMITS, rows=ROWS) as show:
        show(snapshot())
        show(snapshot())
    assert "whole run" in written(console)
    assert written(console).rstrip("\n").endswith("\x1b[?25h")


def test_fleet_is_read_from_what_fleet_status_says() -> None:
    seen = Fleet.of(
        {
            "demand": 3,
            "backlog": 1,
            "running": 1,
            "reserved": 1,
            "desired": 2,
            "reason": "3 inputs",
            "nodes": [
                {
                    "name": "q-1@host",
                    "state": "ready",
                    "running": 1,
                    "devices": [{"uuid": "GPU-a"}],
                },
                {"name": "q-2@host", "state": "starting", "running": 0, "devices": []},
            ],
            "decisions": [{"at": 1.0, "before": 0, "after": 2, "reason": "3 inputs"}],
        }
    )
    assert seen.nodes[0] == Node(name="q-1", state="ready", running=1, device="GPU-a")
    assert (seen.running, seen.counted()) == (2, "1 ready, 1 starting")
    assert seen.decisions[0].after == 2
    assert not seen.is_settled(2)


def ledger(
    finished: int, total: int, *, error: str | None = None, nodes: tuple[int, ...] = (2, 2)
) -> Ledger:
    """One that was looked at every two seconds, with so many nodes each time."""
    book = Ledger(total=total)
    for n in range(finished):
        book.publish(str(n), due=n - 0.012, now=float(n))
        if error is None:
            book.settle(str(n), node="n", started=n + 0.5, ended=n + 2.0)
        else:
            book.settle(str(n), error=error)
    for look, count in enumerate(nodes):
        seen = tuple(node(f"n{i}", "ready", 1) for i in range(count))
        book.snapshot(elapsed=look * 2.0, fleet=Fleet(nodes=seen))
    return book


def test_fixed_fleet_costs_at_least_as_much() -> None:
    assert fixed_size(ledger(1, 1, nodes=(2, 2))) == 2
    assert fixed_size(ledger(1, 1, nodes=(1, 4, 4))) == 3
    assert fixed_size(ledger(1, 1, nodes=())) == 1


def test_summary_sets_both_runs_side_by_side() -> None:
    text = summary(ledger(4, 4, nodes=(1, 4, 4)), ledger(4, 4, nodes=(3, 3, 3)), LIMITS, [])
    rows = {row[:18].strip(): row[18:].split() for row in text.splitlines()}
    assert rows["nodes"] == ["1", "to", "4", "3"]
    assert rows["node-seconds"] == ["10.0", "12.0"]
    assert rows["wait p99"] == ["0.50", "s", "0.50", "s"]
    assert rows["latency p99"] == ["2.00", "s", "2.00", "s"]
    assert "10.0 node-seconds / 4.0 s = 2.50, rounded up" in text
    assert "at most 12 ms late" in text
    assert "8 of 8: none lost, none failed" in text


def test_summary_of_an_all_failed_run_is_written_too() -> None:
    book = ledger(2, 2, error="FAILURE: boom")
    found = problems(book, LIMITS)
    assert found == ["2 of 2 inputs failed; the first: FAILURE: boom"]
    assert "problem" in summary(book, book, LIMITS, found)


def test_problems_name_what_is_lost_or_over_the_limit() -> None:
    book = ledger(2, 4)
    assert problems(book, Limits(max_inputs=1)) == [
        "2 of 4 inputs have no result",
        "2 inputs ran at once in a node, more than max_inputs=1",
    ]
