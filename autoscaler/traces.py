"""Arrival traces from files of CSV or JSON lines, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.errors import ConfigurationError

# Traces of language models tell tokens, not times. Roughly a 70B model: a prompt of 2,000 tokens
# is read in one second, and one request's answer grows by 20 tokens a second.
PREFILL_SECONDS_PER_TOKEN = 0.0005
DECODE_SECONDS_PER_TOKEN = 0.05

#: The names that a column may have, by what it holds; the first that a file has counts.
ARRIVAL = ("arrival_s", "t_s", "arrival", "at", "timestamp", "TIMESTAMP")
RUN_TIME = ("seconds", "run_time_s", "run_time", "runtime", "service_s", "duration_s", "duration")
PROMPT = ("prompt_tokens", "in_tokens", "ContextTokens")
GENERATED = ("generated_tokens", "out_tokens", "GeneratedTokens")

_GZIP = b"\x1f\x8b"

# What a line holds by column, and its number.
_Row = tuple[int, Mapping[str, Any]]


def read_trace(path: Path, *, seconds: float | None = None) -> tuple[Arrival, ...]:
    """The arrivals of a file of CSV with a header, or of JSON lines; ordered, the first one at 0.

    Each line needs when an input arrives (:data:`ARRIVAL`): seconds from any instant, or a date
    with a time in ISO 8601, of UTC where it names no zone. An input runs for what its line says
    (:data:`RUN_TIME`); else for ``seconds``, if that is given; else for prompt tokens x
    PREFILL_SECONDS_PER_TOKEN + generated tokens x DECODE_SECONDS_PER_TOKEN.

    Raises:
        ConfigurationError: naming the file, the line, the value and the remedy.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == _GZIP
        # "-sig": a file from a spreadsheet may begin with a byte order mark.
        with TextIOWrapper(
            gzip.GzipFile(fileobj=file) if packed else file, encoding="utf-8-sig", newline=""
        ) as lines:
            try:
                return parse_trace(lines, seconds=seconds, name=str(path))
            except UnicodeDecodeError as error:
                raise ConfigurationError(
                    f"{path} is no text in UTF-8 ({error}): save it as CSV or JSON lines, gzipped "
                    "or not"
                ) from error
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ConfigurationError(
                    f"{path} is damaged ({error}): gzip it once more, or copy it again"
                ) from error


def parse_trace(
    lines: Iterable[str], *, seconds: float | None = None, name: str = "the trace"
) -> tuple[Arrival, ...]:
    """:func:`read_trace` for lines; ``name`` is what errors call them."""
    columns, rows = _table(lines, name)
    reader = _Reader.of(columns, seconds, name)
    arrivals = []
    for number, row in rows:
        try:
            arrivals.append(reader.arrival(row))
        except ConfigurationError as error:
            raise ConfigurationError(f"line {number} of {name}: {error}") from error
    arrivals.sort(key=lambda arrival: arrival.at)
    first = arrivals[0].at if arrivals else 0.0
    return tuple(Arrival(at=each.at - first, seconds=each.seconds) for each in arrivals)


def _table(lines: Iterable[str], name: str) -> tuple[list[str], Iterable[_Row]]:
    """The columns, and the lines that hold something; the first line tells which kind they are."""
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        raise ConfigurationError(f"{name} is empty: record some arrivals first")
    if first.lstrip().startswith("["):
        raise ConfigurationError(
            f"{name} begins with '[': write one JSON object on each line, as `jq -c '.[]'` does"
        )
    if first.lstrip().startswith("{"):
        rows = list(_objects(chain([first], rest), name))
        return list(dict.fromkeys(key for _, row in rows for key in row)), rows
    cells = _cells(chain([first], rest), name)
    _, columns = next(cells, (0, []))
    return columns, ((number, dict(zip(columns, row, strict=False))) for number, row in cells)


def _cells(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigurationError(
            f"line {reader.line_num} of {name} is no CSV ({error}): correct or remove it"
        ) from error


def _objects(lines: Iterable[str], name: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(
                f"line {number} of {name} is no JSON ({error}): correct or remove it"
            ) from error
        if not isinstance(row, dict):
            raise ConfigurationError(
                f"line {number} of {name} holds {row!r}: write an object, as in "
                '{"arrival_s": 0.5, "seconds": 2}'
            )
        yield number, row


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Which column of a file holds what; None for what it does not tell."""

    at: str
    run_time: str | None
    prompt: str | None
    generated: str | None
    seconds: float | None

    @classmethod
    def of(cls, columns: list[str], seconds: float | None, name: str) -> _Reader:
        if seconds is not None and not 0 <= seconds < math.inf:
            raise ConfigurationError(f"seconds={seconds!r} must be a number of 0 or more")
        at = _first(columns, ARRIVAL)
        if at is None:
            raise ConfigurationError(
                f"{name} has the columns {columns!r}, none of which tells when inputs arrive: "
                f"name one of them {ARRIVAL[0]} (or {', '.join(ARRIVAL[1:])})"
            )
        found = cls(
            at=at,
            run_time=_first(columns, RUN_TIME),
            prompt=_first(columns, PROMPT),
            generated=_first(columns, GENERATED),
            seconds=seconds,
        )
        if (found.run_time, found.generated, seconds) == (None, None, None):
            raise ConfigurationError(
                f"{name} has the columns {columns!r}, none of which tells how long an input runs: "
                f"add one of {', '.join(RUN_TIME)}, or say one run time for all with "
                "--duration SECONDS"
            )
        return found

    def arrival(self, row: Mapping[str, Any]) -> Arrival:
        return Arrival(at=_instant(self.at, row.get(self.at)), seconds=self._run_seconds(row))

    def _run_seconds(self, row: Mapping[str, Any]) -> float:
        if self.run_time is not None and _is_told(row, self.run_time):
            return _number(self.run_time, row[self.run_time])
        if self.seconds is not None:
            return self.seconds
        if self.generated is not None and _is_told(row, self.generated):
            prompt = 0.0 if self.prompt is None else _number(self.prompt, row.get(self.prompt))
            generated = _number(self.generated, row[self.generated])
            return prompt * PREFILL_SECONDS_PER_TOKEN + generated * DECODE_SECONDS_PER_TOKEN
        raise ConfigurationError(
            f"{self.run_time or self.generated} is empty: fill it in, or say the run time of such "
            "inputs with --duration SECONDS"
        )


def _first(columns: Iterable[str], names: Iterable[str]) -> str | None:
    known = set(columns)
    return next((name for name in names if name in known), None)


def _is_told(row: Mapping[str, Any], column: str) -> bool:
    return row.get(column) not in (None, "")


def _instant(column: str, value: Any) -> float:
    """Seconds, of a number or of a date with a time."""
    if isinstance(value, str) and ":" in value:
        return _date(column, value)
    return _number(column, value, "a number of seconds, or a date as in 2025-01-31T12:00:00.5Z")


def _date(column: str, text: str) -> float:
    # Python 3.10 reads neither a Z nor more or fewer than six digits of a second.
    clock, point, rest = text.strip().replace("Z", "+00:00").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        date = datetime.fromisoformat(f"{clock}{rest[len(digits) :]}")
    except ValueError as error:
        raise ConfigurationError(
            f"{column}={text!r} is no date: write it as in 2025-01-31T12:00:00.5Z"
        ) from error
    zoned = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return zoned.timestamp() + float(f"0{point}{digits}0" if point else 0)


def _number(column: str, value: Any, remedy: str = "a number") -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigurationError(f"{column}={value!r} must be 0 or more: write {remedy}")
    return number
