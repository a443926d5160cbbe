"""``celery fleet plan``: which fleet, what is compared, how it is shown, what is refused."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_concurrent import ConfigurationError, autoscaler
from celery_concurrent.autoscaler.plan import (
    Plan,
    as_data,
    choose,
    make_plan,
    same_cost,
    with_knobs,
)
from celery_concurrent.autoscaler.plantable import mean_nodes, table
from celery_concurrent.autoscaler.replay import Arrival, Replay, Step
from celery_concurrent.fleets import Fleet
from celery_concurrent.knobs import Layer
from celery_concurrent.limits import Limits

SOURCE = """
from celery import Celery
from celery_concurrent import concurrent, scaling

app = Celery("plan", broker="redis://nobody.invalid:1/0", set_as_current=False)

@app.task(queue="fetch")
@scaling(max_nodes=4, scaledown_window=5)
@concurrent(max_inputs=3, target_inputs=2)
async def fetch(url): ...
"""

# A burst every 100 s.
BURSTS = [Arrival(at=100.0 * burst, seconds=2.0) for burst in range(20) for _ in range(8)]


def fleet(queue: str = "fetch", **knobs: Any) -> Fleet:
    return Fleet(
        queue=queue,
        tasks=("shop.fetch",),
        limits=Limits(max_inputs=3, target_inputs=2),
        layers=(Layer.of(queue, "@scaling of shop.fetch", knobs),),
    )


def plan(**knobs: Any) -> Plan:
    return make_plan(fleet(**knobs), BURSTS, start_seconds=10.0)


# Which fleet


def test_an_app_with_one_fleet_needs_no_queue() -> None:
    only = fleet()
    assert choose({"fetch": only}, None) is only


def test_the_command_line_is_stronger_than_all_that_the_app_says() -> None:
    told = with_knobs(fleet(max_nodes=4, price=2.0), {"max_nodes": 9, "price": None})
    assert (told.knobs.max_nodes, told.knobs.price) == (9, 2.0)
    assert told.source_of("max_nodes") == "command line"


@pytest.mark.parametrize(
    ("fleets", "queue", "knobs", "told"),
    [
        ({}, None, {}, r"no concurrent task.*@concurrent\(max_inputs="),
        ({"a": fleet("a"), "b": fleet("b")}, None, {}, r"has 2 fleets: name .* \(a, b\)"),
        ({"fetch": fleet()}, "fetsh", {}, "queue 'fetsh' has no fleet; did you mean fetch"),
        ({"fetch": fleet()}, "xyz", {}, "queue 'xyz' has no fleet: name one of fetch"),
        ({"fetch": fleet()}, None, {"price": 0.0}, "'fetch', command line: price=0.0 must be"),
        ({"fetch": fleet(max_nodes=4)}, None, {"min_nodes": 5}, "min_nodes=5 must not exceed"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(
    fleets: Mapping[str, Fleet], queue: str | None, knobs: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        with_knobs(choose(fleets, queue), knobs)


# What is compared


def test_both_policies_and_a_fixed_fleet_of_the_same_cost_are_replayed() -> None:
    for made, names in (
        (plan(scaledown_window=30.0), ["hold, 30 s", "break-even, price 3"]),
        (plan(policy="break-even", price=0.5), ["break-even, price 0.5", "hold, 60 s"]),
    ):
        own, _, fixed = made.variants
        assert [each.name for each in made.variants[:2]] == names
        nodes = same_cost(own.replay)
        assert fixed.name == f"fixed, {nodes} node{'s' if nodes > 1 else ''}"
        assert (fixed.replay.peak, fixed.replay.starts) == (nodes, nodes)
        assert fixed.replay.node_seconds == pytest.approx(nodes * fixed.replay.ended)
        # It is there before the first input comes.
        assert fixed.replay.waits[0] == 0.0
        assert own.replay.waits[0] == 10.0


def test_the_other_policy_is_the_one_that_the_fleet_would_have_by_that_knob() -> None:
    assert plan(policy="break-even").variants[0] == plan().variants[1]
    assert plan(policy="break-even").variants[1] == plan().variants[0]


def test_the_policies_keep_to_the_fleets_knobs() -> None:
    assert [each.replay.peak for each in plan(max_nodes=2).variants[:2]] == [2, 2]
    assert plan(max_nodes=9).variants[0].replay.peak == 4
    assert plan(min_nodes=1).variants[0].replay.waits[-8] == 0.0


@pytest.mark.parametrize(
    ("node_seconds", "ended", "nodes"), [(240.0, 100.0, 2), (260.0, 100.0, 3), (1.0, 100.0, 1)]
)
def test_a_fixed_fleet_costs_what_is_nearest(node_seconds: float, ended: float, nodes: int) -> None:
    assert same_cost(replay(node_seconds=node_seconds, ended=ended)) == nodes
    assert same_cost(replay(node_seconds=0.0, ended=0.0)) == 1


def test_progress_goes_from_nothing_to_all() -> None:
    told: list[float] = []
    make_plan(fleet(), BURSTS, start_seconds=1.0, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 30


@pytest.mark.parametrize(
    ("knobs", "arrivals", "start", "told"),
    [
        ({}, [], 1.0, "the trace has no arrivals"),
        ({"max_nodes": 0}, BURSTS, 1.0, r"max_nodes=0 \(@scaling of shop.fetch\).*--max-nodes"),
        ({}, BURSTS, math.nan, "start_seconds=nan must be a number of 0 or more"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    knobs: dict[str, Any], arrivals: list[Arrival], start: float, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make_plan(fleet(**knobs), arrivals, start_seconds=start)


# How it is shown


def replay(**given: Any) -> Replay:
    counts = dict.fromkeys(("decisions", "starts", "cancels", "drains"), 0)
    values: dict[str, Any] = {"waits": (), "steps": (), "node_seconds": 0.0, "ended": 0.0, **counts}
    return Replay(**{**values, **given})


def step(at: float, nodes: int) -> Step:
    return Step(at=at, starting=0, ready=nodes, draining=0, desired=nodes)


def test_nodes_over_time_are_means_of_equal_parts() -> None:
    found = replay(steps=(step(0.0, 1), step(5.0, 3), step(12.0, 0), step(18.0, 4)), ended=20.0)
    # The last part is of a variant that takes longer.
    assert mean_nodes(found, 25.0, 5) == pytest.approx([1.0, 3.0, 1.2, 1.6, 0.0])
    assert mean_nodes(found, 0.0, 3) == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("parts", [1, 7, 18])
def test_nodes_over_time_add_up_to_the_cost(parts: int) -> None:
    for variant in plan().variants:
        means = mean_nodes(variant.replay, 2500.0, parts)
        assert sum(means) * 2500.0 / parts == pytest.approx(variant.replay.node_seconds)


def printed(made: Plan) -> list[str]:
    console = pytest.importorskip("rich.console").Console(width=120, no_color=True)
    with console.capture() as caught:
        console.print(table(made))
    return [line.rstrip() for line in caught.get().splitlines()]


def test_the_table_has_the_inputs_and_a_column_for_each_variant() -> None:
    made = plan(max_nodes=4, scaledown_window=5.0, gpus=1, nodes_per_gpu=2)
    lines = printed(made)
    assert lines[:3] == [
        "fetch: 160 inputs in 1,900 s, 2.0 s each; a node takes inputs 10 s after its start",
        "target_inputs=2, max_inputs=3",
        "@scaling of shop.fetch: max_nodes=4, scaledown_window=5.0, gpus=1, nodes_per_gpu=2",
    ]
    rows = {cells[0]: cells[1:] for line in lines[5:] if (cells := _cells(line))}
    own = made.variants[0].replay
    assert rows["node-seconds"][0] == f"{own.node_seconds:,.0f}"
    assert rows["p50 wait"][0] == rows["p99 wait"][0] == "10.0 s"
    assert rows["start within 10 s"][0] == "100.0%"
    assert rows["peak nodes"][0] == "4"
    assert rows["peak devices"][0] == "2"
    # The last four are there at the end.
    assert (rows["starts"][0], rows["drains"][0]) == ("80", "76")
    assert rows["last input ends"][0] == f"{own.ended:,.0f} s"
    # The last column is the fixed fleet's.
    assert len(set(lines[-1][-18:])) == 1
    assert lines[-1].startswith("nodes over time")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_a_wait_without_an_end_is_shown_as_such_and_is_null_in_json() -> None:
    made = plan()
    endless = replace(made.variants[0].replay, waits=(math.inf,) * 160)
    made = replace(made, variants=(replace(made.variants[0], replay=endless), *made.variants[1:]))
    assert any("no end" in line for line in printed(made))
    first = json.loads(json.dumps(as_data(made), allow_nan=False))["variants"][0]
    assert (first["p50_wait"], first["within_10_s"]) == (None, 0.0)


def test_cancelled_starts_are_counted_in_the_table() -> None:
    made = plan()
    busy = replace(made.variants[0].replay, starts=7, cancels=2)
    made = replace(made, variants=(replace(made.variants[0], replay=busy), *made.variants[1:]))
    assert any("7 (2 cancelled)" in line for line in printed(made))


def test_the_picture_is_a_png_and_its_curves_are_the_steps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from celery_concurrent.autoscaler.planplot import curve, draw

    made = plan()
    draw(made, tmp_path / "plan.any")
    assert (tmp_path / "plan.any").read_bytes().startswith(b"\x89PNG\r\n")
    at, nodes = curve(made.variants[0], 5000.0)
    assert max(nodes) == made.variants[0].replay.peak
    area = sum(n * (end - begin) for n, begin, end in zip(nodes, at, at[1:], strict=False))
    assert area == pytest.approx(made.variants[0].replay.node_seconds)


# The command


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Any) -> Iterator[str]:
    """An app whose broker is not there: nothing may ask it. A trace lies beside it."""
    (tmp_path / "unit_plan.py").write_text(SOURCE)
    lines = [f"{arrival.at}\n" for arrival in BURSTS]
    (tmp_path / "trace.csv.gz").write_bytes(gzip.compress(f"t_s\n{''.join(lines)}".encode()))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield "unit_plan"
    sys.modules.pop("unit_plan", None)


def run(*words: str) -> Result:
    return CliRunner().invoke(celery, ["-A", "unit_plan", "fleet", "plan", *words])


GIVEN = ("--trace", "trace.csv.gz", "--duration", "2", "--start-seconds", "10")


def test_the_command_takes_fleet_options_and_trace_together(shop: str) -> None:
    done = run("fetch", *GIVEN, "--max-nodes", "2", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["queue"], told["inputs"], told["span"]) == ("fetch", 160, 1900.0)
    assert (told["start_seconds"], told["mean_seconds"]) == (10.0, 2.0)
    assert (told["target_inputs"], told["max_inputs"]) == (2, 3)
    assert (told["knobs"]["max_nodes"], told["knobs"]["scaledown_window"]) == (2, 5)
    assert told["sources"]["max_nodes"] == "command line"
    own = told["variants"][0]
    assert (own["peak_nodes"], own["p50_wait"], own["starts"]) == (2, 10.0, 40)
    assert own["steps"][0] == {"at": 0.0, "starting": 2, "ready": 0, "draining": 0, "desired": 2}


def test_the_table_needs_rich_and_json_does_not(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run(*GIVEN)
    assert done.exit_code == 1
    assert 'Error: tables need rich: pip install "celery-concurrent[gpu]"' in done.stderr
    assert run(*GIVEN, "--json").exit_code == 0


def test_the_picture_needs_matplotlib(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, f"{autoscaler.__name__}.planplot", raising=False)
    monkeypatch.delattr(autoscaler, "planplot", raising=False)
    done = run(*GIVEN, "--json", "--png", "plan.png")
    assert done.exit_code == 1
    assert '--png needs matplotlib: pip install "celery-concurrent[demo]"' in done.stderr


def test_a_picture_that_cannot_be_written_is_refused_before_the_replay(shop: str) -> None:
    pytest.importorskip("matplotlib")
    done = run(*GIVEN, "--json", "--png", "no/where.png")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Error: cannot write to no/where.png: name another file with --png" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trace", "nothing.csv"), "'--trace': File 'nothing.csv' does not exist"),
        ((), "Missing option '--trace'"),
        (("--trace", "unit_plan.py"), "unit_plan.py has the columns"),
        (("--trace", "trace.csv.gz"), "trace.csv.gz has the columns .*--duration SECONDS"),
        ((*GIVEN, "--start-seconds", "-1"), "'--start-seconds': -1.0 is not in the range x>=0"),
        ((*GIVEN, "--policy", "holt"), 'policy=\'holt\' must be "hold" or "break-even"; did you'),
        (("other", *GIVEN), "queue 'other' has no fleet"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(
    shop: str, words: tuple[str, ...], told: str
) -> None:
    done = run(*words, "--json")
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit)
    assert re.search(f"Error: .*{told}", done.stderr), done.stderr
    assert done.stdout == ""
