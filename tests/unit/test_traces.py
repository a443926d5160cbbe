"""Arrival traces: what files may hold, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from celery_concurrent import ConfigurationError
from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.autoscaler.traces import parse_trace, read_trace


def test_run_times_come_from_tokens_when_no_column_tells_them() -> None:
    lines = ["t_s,in_tokens,out_tokens", "0.5,2000,100", "2.5,0,20"]
    assert parse_trace(lines) == (Arrival(at=0.0, seconds=6.0), Arrival(at=2.0, seconds=1.0))


def test_a_trace_may_tell_only_arrivals_when_the_run_time_is_said() -> None:
    assert parse_trace(["name,arrival_s", "a,3", "b,1"], seconds=4.0) == (
        Arrival(at=0.0, seconds=4.0),
        Arrival(at=2.0, seconds=4.0),
    )


def test_the_run_time_that_is_said_is_for_inputs_that_have_none_and_beats_tokens() -> None:
    lines = ["arrival_s,seconds,out_tokens", "0,1.5,9", "1,,9"]
    assert [each.seconds for each in parse_trace(lines, seconds=4.0)] == [1.5, 4.0]
    assert [each.seconds for each in parse_trace(lines)] == [1.5, 0.45]


def test_json_lines_may_differ_in_what_they_tell() -> None:
    lines = ['{"arrival_s": 5, "seconds": 2, "id": "a"}\n', "\n", '{"arrival_s": 4.5}\n']
    assert parse_trace(lines, seconds=1.0) == (
        Arrival(at=0.0, seconds=1.0),
        Arrival(at=0.5, seconds=2.0),
    )


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ("2023-11-16 18:15:46.6805900", "2023-11-16 18:15:50.9951690", 4.314579),
        ("2025-01-31T12:00:00Z", "2025-01-31T13:00:00.5+00:30", 1800.5),
        ("2025-01-31T12:00:00", "2025-01-31T12:00:01Z", 1.0),
        ("1700000000.25", "1700000003.75", 3.5),
    ],
)
def test_arrivals_may_be_dates(first: str, second: str, apart: float) -> None:
    lines = ["timestamp", first, second]
    assert parse_trace(lines, seconds=1.0)[1].at == pytest.approx(apart, abs=1e-5)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["when,seconds", "0,1"], "has the columns .*'when'.* tells when inputs arrive: .*arrival"),
        (["arrival_s", "0"], r"none of which tells how long an input runs.*--duration SECONDS"),
        (["arrival_s,seconds", "0,1", "x,1"], "line 3 of the trace: arrival_s='x' must be .* date"),
        (["arrival_s,seconds", "0,-1"], "line 2 of the trace: seconds='-1' must be 0 or more"),
        (["arrival_s,seconds", "0,nan"], "line 2 of the trace: seconds='nan' must be 0 or more"),
        (["arrival_s,seconds", "0"], "line 2 of the trace: seconds is empty: .* --duration"),
        (["arrival_s,seconds", "12:00,1"], "line 2 of the trace: arrival_s='12:00' is no date"),
        (["arrival_s,out_tokens", "0,"], "line 2 of the trace: out_tokens is empty"),
        (["t_s,in_tokens,out_tokens", "0,,3"], "line 2 of the trace: in_tokens='' must be"),
        (["arrival_s,seconds", f'0,"{"x" * 140_000}"'], "line 2 of the trace is no CSV .*remove"),
        ([], "the trace is empty: record some"),
        (["\n"], "has the columns"),
        (['[{"arrival_s": 1}]'], r"begins with '\[': write one JSON object on each line.*jq"),
        (['{"arrival_s": 1}', "{"], "line 2 of the trace is no JSON .*correct or remove"),
        (['{"arrival_s": 1}', "7"], "line 2 of the trace holds 7: write an object"),
        (['{"arrival_s": true, "seconds": 1}'], "line 1 of the trace: arrival_s=True must be"),
        (['{"arrival_s": [1], "seconds": 1}'], r"line 1 of the trace: arrival_s=\[1\] must be"),
        (['{"seconds": 1}', '{"arrival_s": 1}'], "line 1 of the trace: arrival_s=None must be"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_the_line(lines: list[str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parse_trace(lines)


def test_a_run_time_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="seconds=nan must be a number of 0 or more"):
        parse_trace(["arrival_s", "0"], seconds=math.nan)


@pytest.mark.parametrize(
    "text",
    ["\ufeffarrival_s,seconds\n0,1\n", json.dumps({"arrival_s": 0, "seconds": 1})],
    ids=["csv", "json"],
)
def test_a_trace_is_read_from_a_file_gzipped_or_not(tmp_path: Path, text: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_text(text, encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_trace(plain) == read_trace(packed) == (Arrival(at=0.0, seconds=1.0),)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,seconds\n0,x\n")
    with pytest.raises(ConfigurationError, match=rf"line 2 of {path}: seconds='x'"):
        read_trace(path)
    path.write_bytes(b"arrival_s,seconds\n\xff,1\n")
    with pytest.raises(ConfigurationError, match=f"{path} is no text in UTF-8"):
        read_trace(path)
    whole = gzip.compress(b"arrival_s,seconds\n" + b"0,1\n" * 1000)
    for damaged in (whole[:-9], whole[:20] + b"\xff" * 20, whole[:-8] + b"\0" * 8):
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=f"{path} is damaged .*copy it again"):
            read_trace(path)
