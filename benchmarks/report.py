"""The table, the JSON and the notes of a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.contenders import Contender
from benchmarks.model import BROKERS, Entry
from benchmarks.services import redis_server, version_of
from benchmarks.summary import Line, Value, behind, losses

_RATIO_NAMES = (
    "best of Celery",
    "late acks",
    "taskiq",
    "aio-celery",
    "raw loop",
)


def show(console: Console, lines: Sequence[Line], entries: Sequence[Entry]) -> None:
    """Print a table per broker, then what stands behind its marks."""
    for broker in BROKERS:
        here = [line for line in lines if line.cell.broker == broker]
        if here:
            console.print(_table(f"{broker}, results in Redis", here))
    console.print("Ratios: ours against theirs, above 1 we are better. – cannot do it.")
    for note in _notes(lines, entries):
        console.print(note, style="yellow", highlight=False, markup=False)
    short = behind(lines)
    for line, ratio in short:
        console.print(
            f"behind Celery's best: {line.cell.broker}, {line.title}: {ratio:.2f}",
            style="red",
        )
    if not short and any(line.ratios for line in lines):
        console.print("Level with the best of Celery's own pools, or better, on every row.")


def _table(title: str, lines: Sequence[Line]) -> Table:
    names = list(dict.fromkeys(name for line in lines for name in line.values))
    ratios = [name for name in _RATIO_NAMES if any(name in line.ratios for line in lines)]
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name.replace(" ", "\n"), justify="right")
    for name in ratios:
        table.add_column(f"vs {name}".replace(" of ", "\nof "), justify="right", style="bold")
    for line in lines:
        shown = [_cell(line.values.get(name)) for name in names]
        against = [f"{line.ratios[n]:.2f}" if n in line.ratios else "–" for n in ratios]
        table.add_row(f"{line.title} [{line.figure.unit}]".replace("[", "\\["), *shown, *against)
    return table


def _cell(value: Value | None) -> Text:
    if value is None:
        return Text("–", style="dim")
    text = Text("failed" if value.value is None else number(value.value))
    if value.lost:
        text.append(f"\nlost {value.lost:,}", style="bold red")
    elif value.note:
        text.append(" *", style="yellow")
    return text


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _notes(lines: Sequence[Line], entries: Sequence[Entry]) -> list[str]:
    notes = []
    for line in lines:
        for name, value in line.values.items():
            where = f"{name}, {line.cell.broker} {line.cell.name}"
            if value.note:
                notes.append(f"* {where}: {value.note}")
            if value.twice:
                notes.append(f"* {where}: {value.twice:,} inputs ran twice")
    for (name, broker, cell), count in losses(entries).items():
        notes.append(f"! {name}, {broker} {cell}: {count:,} inputs have no result, nor wait")
    return list(dict.fromkeys(notes))


def save(
    path: Path, lines: Sequence[Line], entries: Sequence[Entry], contenders: Sequence[Contender]
) -> None:
    """Write all that was measured, and on what, as JSON."""
    document: dict[str, Any] = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: _version(name) for c in contenders for name in c.packages},
        "lines": [
            {
                "broker": line.cell.broker,
                "cell": line.cell.name,
                "title": line.title,
                "figure": asdict(line.figure),
                "values": {name: asdict(value) for name, value in line.values.items()},
                "ratios": dict(line.ratios),
            }
            for line in lines
        ],
        "entries": [asdict(entry) for entry in entries],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """On what was measured."""
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "redis": version_of([redis_server(), "--version"]),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
