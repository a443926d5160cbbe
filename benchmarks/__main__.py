"""``python -m benchmarks node`` and ``fleet``: measure ours beside everyone else, in one run."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.contenders.base import missing_packages
from benchmarks.fleet import command as fleet
from benchmarks.model import BROKERS, BenchmarkError, Entry
from benchmarks.options import positive
from benchmarks.progress import Progress
from benchmarks.rows import ROWS
from benchmarks.services import startable
from benchmarks.session import Plan, carry_out
from benchmarks.summary import losses, summarise

_TABLE_WIDTH = 140
_OUT = Path(__file__).resolve().parent / "out"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when ours did not keep what is promised."""
    options = _parser().parse_args(argv)
    # `kill` ends the run as Ctrl-C does: by leaving every `with` block. Said of both, since a
    # shell starts what it runs in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    # The table needs its room: rather lines that wrap than columns of one character.
    console.width = max(console.width, _TABLE_WIDTH)
    if options.command == "fleet":
        return fleet.run(options, console)
    return _node(options, console)


def _node(options: argparse.Namespace, console: Console) -> int:
    try:
        plan = _plan(options, console)
    except BenchmarkError as error:
        console.print(f"cannot measure: {error}", style="red")
        return 2
    entries: list[Entry] = []
    try:
        with Progress(console, len(plan.steps())) as progress:
            for entry in carry_out(plan, progress.watch):
                entries.append(entry)
                progress.done(entry)
    except KeyboardInterrupt:
        console.print("interrupted: what was measured until now follows", style="yellow")
    except BenchmarkError as error:
        console.print(f"cannot measure: {error}", style="red")
        return 2
    if entries:
        _report(console, plan, entries, options.out)
    return 0 if _is_ours_sound(plan, entries) else 1


def _report(console: Console, plan: Plan, entries: Sequence[Entry], out: Path) -> None:
    lines = summarise(entries, plan.rows, plan.contenders)
    report.show(console, lines, entries)
    out.mkdir(parents=True, exist_ok=True)
    report.save(out / "node.json", lines, entries, plan.contenders)
    # Imported last: it takes a second, and a run without it has measured all the same.
    from benchmarks.plot import draw, draw_growth

    written = [out / "node.json", out / "node.png"]
    draw(out / "node.png", lines)
    if draw_growth(out / "growth.png", lines):
        written.append(out / "growth.png")
    console.print(f"Written: {', '.join(map(str, written))}", highlight=False)


def _is_ours_sound(plan: Plan, entries: Sequence[Entry]) -> bool:
    ours = {c.name for c in plan.contenders if c.family == "ours"}
    failed = [e for e in entries if e.contender in ours and not e.measured.figures]
    return not failed and not any(name in ours for name, _broker, _cell in losses(entries))


def _plan(options: argparse.Namespace, console: Console) -> Plan:
    contenders: list[Contender] = []
    for contender in _chosen(CONTENDERS, options.contenders):
        missing = missing_packages(contender.packages)
        if missing:
            console.print(
                f"left out: {contender.name} needs pip install {' '.join(missing)}",
                style="yellow",
            )
        else:
            contenders.append(contender)
    return Plan(
        brokers=(options.only,)
        if options.only
        else startable(lambda text: console.print(text, style="yellow")),
        rows=tuple(_chosen(ROWS, options.rows)),
        contenders=tuple(contenders),
        repeat=options.repeat,
        quick=options.quick,
        stall=options.stall,
        appendonly=options.appendonly,
    )


def _chosen(all_of_them: Sequence[Any], words: Sequence[str] | None) -> list[Any]:
    """Those whose name contains one of the words; all when no word was given."""
    if not words:
        return list(all_of_them)
    return [each for each in all_of_them if any(word in each.name for word in words)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    node = commands.add_parser("node", help="our node, Celery's own pools and peers")
    node.add_argument("--quick", action="store_true", help="fewer inputs and rows: minutes")
    node.add_argument("--repeat", type=positive, default=1, help="repetitions; medians count")
    node.add_argument("--only", choices=BROKERS, help="one broker instead of both")
    node.add_argument("--rows", nargs="+", metavar="ROW", help=", ".join(row.name for row in ROWS))
    node.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        help="parts of names: " + ", ".join(c.name for c in CONTENDERS),
    )
    node.add_argument("--out", type=Path, default=_OUT, help="folder for the JSON and the PNG")
    node.add_argument(
        "--stall", type=float, default=5.0, help="seconds without progress that end a contender"
    )
    node.add_argument(
        "--appendonly",
        choices=("no", "everysec", "always"),
        default="no",
        help="let Redis write an append-only file, and how often it syncs",
    )
    fleet.add_options(
        commands.add_parser("fleet", help="autoscalers timed; policies and peers' rules replayed"),
        _OUT,
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
