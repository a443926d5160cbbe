"""From the samples of a timed autoscaler to figures, promises, table, JSON and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from benchmarks.__main__ import _parser
from benchmarks.fleet import command
from benchmarks.fleet.live import report
from benchmarks.fleet.live.model import Case, Line
from benchmarks.fleet.live.session import Plan
from benchmarks.fleet.live.starts import (
    Sample,
    decision_after,
    is_empty,
    is_full,
    is_rested,
    lines,
)
from benchmarks.fleet.live.ticks import Looks
from benchmarks.fleet.live.ticks import lines as tick_lines
from benchmarks.model import BenchmarkError

CASE = Case(row="start", broker="redis", samples=100)
#: 1 to 100 ms to the decision, 50 ms more to the node, 10 ms more to the result.
SAMPLES = [
    Sample(decided=ms / 1_000, consumed=(ms + 50) / 1_000, result=(ms + 60) / 1_000)
    for ms in range(1, 101)
]


def test_figures_are_quantiles_in_milliseconds() -> None:
    decision, from_decision, consuming, result = lines(CASE, SAMPLES)
    assert [decision.p50, decision.p99] == pytest.approx([51.0, 100.0])
    assert [from_decision.p50, from_decision.p99] == pytest.approx([50.0, 50.0])
    assert [consuming.p50, result.p99] == pytest.approx([101.0, 160.0])
    assert {line.unit for line in (decision, from_decision, consuming, result)} == {"ms"}


def test_what_is_promised_is_promised_where_it_can_be_kept() -> None:
    def promises(case: Case) -> list[float | None]:
        return [line.most for line in lines(case, SAMPLES)]

    assert promises(CASE) == [100.0, 150.0, None, None]
    assert promises(replace(CASE, fresh=True)) == [100.0, None, None, None]
    assert promises(replace(CASE, queues=1_000)) == [100.0, None, None, None]
    assert promises(replace(CASE, broker="rabbitmq", queues=100))[0] == 100.0
    assert promises(replace(CASE, broker="rabbitmq", queues=1_000))[0] is None


def test_a_broken_promise_is_named_with_its_figure() -> None:
    late = [replace(sample, decided=0.12, consumed=0.2) for sample in SAMPLES]
    (text,) = report.broken(lines(CASE, late))
    assert "redis, from zero, forked, 1 queue" in text
    assert "takes 120 ms at the p99, may take 100" in text
    assert report.broken(lines(CASE, SAMPLES)) == []


def test_the_decision_is_the_first_growth_after_the_arrival() -> None:
    changes = [
        {"at": 10.0, "before": 0, "after": 1},
        {"at": 11.0, "before": 1, "after": 0},
        {"at": 12.5, "before": 0, "after": 1},
        {"at": 13.0, "before": 1, "after": 2},
    ]
    assert decision_after(10.5, {"decisions": changes}) == 12.5
    with pytest.raises(BenchmarkError, match=r"no decision since 13\.5"):
        decision_after(13.5, {"decisions": changes})


def test_an_input_is_sent_only_to_a_fleet_at_rest() -> None:
    def status(desired: int, running: int, *states: str, demand: int | None = None) -> Any:
        nodes = [{"state": state} for state in states]
        known = running if demand is None else demand
        return {"desired": desired, "running": running, "demand": known, "nodes": nodes}

    assert is_empty(status(0, 0))
    assert not is_empty(status(0, 0, "draining"))
    assert not is_empty(status(0, 0, demand=1))
    assert not is_empty({})
    assert is_rested(status(1, 0, "ready"))
    assert not is_rested(status(1, 0, "starting"))
    assert not is_rested(status(1, 0, "ready", "draining"))
    assert not is_rested(status(2, 0, "ready"))
    assert is_full(status(1, 1, "ready"))
    assert not is_full(status(1, 1, "ready", demand=2))


def test_looks_become_milliseconds_and_rates() -> None:
    case = Case(row="tick", broker="redis", nodes=1_000, queues=10)
    looks = Looks(cpu=[0.004] * 40, wall=[0.008] * 40, seconds=2.0, used=0.5, heard=2_222, held=0)
    found = {line.what: line.p99 for line in tick_lines(case, looks)}
    assert found == pytest.approx(
        {
            "a look: CPU": 4.0,
            "a look: wall": 8.0,
            "looks": 20.0,
            "events heard": 1_111.0,
            "the whole process": 25.0,
        }
    )


@pytest.mark.parametrize("looks", [Looks(seconds=1.0), Looks(cpu=[1.0], wall=[1.0], held=1)])
def test_looks_at_nodes_that_were_not_heard_are_no_figure(looks: Looks) -> None:
    with pytest.raises(BenchmarkError, match="silent nodes"):
        tick_lines(CASE, looks)


def test_rows_brokers_and_cases_can_be_chosen() -> None:
    def names(**chosen: Any) -> list[str]:
        given = {"brokers": ("redis", "rabbitmq"), "rows": ("start", "idle", "tick"), **chosen}
        return [f"{case.broker} {case.name}" for _, case in Plan(**given).steps()]

    assert len(names()) == 20
    assert names(brokers=("redis",), rows=("idle",)) == [
        "redis idle, 1 queue",
        "redis idle, 100 queues",
        "redis idle, 1,000 queues",
    ]
    assert names(cases=("one, fresh",)) == [
        "redis from one, fresh, 1 queue",
        "rabbitmq from one, fresh, 1 queue",
    ]
    assert not any("1,000 queues" in name for name in names(rows=("start",), quick=True))
    starts = Plan(brokers=("redis",), rows=("start",), repeat=7).steps()
    assert {case.samples for _, case in starts} == {7}


def test_a_case_that_does_not_exist_is_an_error() -> None:
    words = ["fleet", "--rows", "start", "replay", "--cases", "two", "three"]
    console = Console(width=140, record=True)
    assert command.run(_parser().parse_args(words), console) == 2
    assert "no case's name contains two or three" in console.export_text()


def test_table_json_and_picture_have_all_figures(tmp_path: Path) -> None:
    found: list[Line] = [*lines(CASE, SAMPLES), *lines(replace(CASE, busy=True), SAMPLES)]
    console = Console(width=140, record=True, quiet=False)
    report.show(console, found)
    text = console.export_text()
    assert text.count("arrival to start decision") == 2
    assert "from one, forked, 1 queue" in text
    report.save(tmp_path / "fleet.json", found, (1.0, 2.0, 3.0))
    saved = json.loads((tmp_path / "fleet.json").read_text())
    assert saved["machine"]["load_before"] == [1.0, 2.0, 3.0]
    assert len(saved["lines"]) == 8
    assert len(saved["lines"][0]["values"]) == 100
    assert saved["lines"][0]["case"]["name"] == "from zero, forked, 1 queue"
    assert report.draw(tmp_path / "fleet.png", found)
    assert (tmp_path / "fleet.png").stat().st_size > 10_000
    assert not report.draw(
        tmp_path / "none.png", [replace(found[0], case=replace(CASE, row="idle"))]
    )
