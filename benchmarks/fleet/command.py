"""``python -m benchmarks fleet``: real autoscalers timed, recorded arrivals replayed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.fleet.live import report
from benchmarks.fleet.live.model import Line
from benchmarks.fleet.live.session import ROWS as LIVE
from benchmarks.fleet.live.session import Plan, carry_out
from benchmarks.fleet.peers import Bounds
from benchmarks.fleet.ratios import SAME_SERVICE, Ratio, ratios
from benchmarks.fleet.replay import (
    BREAK_EVEN,
    COLD_STARTS,
    HOLD,
    MODAL,
    TRACES,
    Case,
    Run,
    contenders,
    measure_all,
)
from benchmarks.model import BROKERS, BenchmarkError
from benchmarks.options import positive
from benchmarks.services import startable

#: The most that break-even may cost of a peer at the same share of inputs within 10 s.
CEILINGS = {MODAL.name: 0.6, "KEDA + HPA": 0.75}


REPLAY = "replay"
ROWS = (*(row.name for row in LIVE), REPLAY)
_CANNOT = 2


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases, and shorter ones")
    parser.add_argument("--out", type=Path, default=out, help="folder for the JSON and the PNG")
    real = parser.add_argument_group("start, idle and tick: real processes")
    real.add_argument("--only", choices=BROKERS, help="one broker instead of both")
    real.add_argument("--cases", nargs="+", default=(), metavar="WORD", help="parts of names")
    real.add_argument(
        "--repeat", type=positive, help="nodes started per case; 50, or 5 with --quick"
    )
    simulated = parser.add_argument_group("replay: simulated")
    simulated.add_argument("--target", type=int, default=4, help="inputs per node aimed at")
    simulated.add_argument("--max-inputs", type=int, default=5, help="most inputs per node")
    simulated.add_argument("--max-nodes", type=int, default=64)
    simulated.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do the rows; the exit status is 1 when something promised does not hold, 2 on trouble."""
    status = 0
    if set(options.rows) != {REPLAY}:
        status = _measure(options, console)
    if REPLAY in options.rows and status != _CANNOT:
        status = max(status, _replay(options, console))
    return status


def _measure(options: argparse.Namespace, console: Console) -> int:
    """The rows with real processes; what was measured before an end by force is reported too."""
    lines: list[Line] = []
    load, status = os.getloadavg(), 0
    try:
        plan = _plan(options, console)
        with report.Progress(console, len(plan.steps())) as progress:
            for found in carry_out(plan, progress.watch):
                lines += found
                progress.done(found)
    except KeyboardInterrupt:
        console.print("interrupted: what was measured until now follows", style="yellow")
        status = _CANNOT
    except BenchmarkError as error:
        console.print(f"cannot measure: {error}", style="red", highlight=False, markup=False)
        status = _CANNOT
    if lines:
        report.show(console, lines)
        options.out.mkdir(parents=True, exist_ok=True)
        report.save(options.out / "fleet.json", lines, load)
        report.draw(options.out / "fleet.png", lines)
        console.print(f"Written: {options.out / 'fleet.json'}", highlight=False)
    return status or int(bool(report.broken(lines)))


def _plan(options: argparse.Namespace, console: Console) -> Plan:
    """What was asked for.

    Raises:
        BenchmarkError: nothing can be measured, or there is no such case.
    """
    warn = partial(console.print, style="yellow")
    plan = Plan(
        brokers=(options.only,) if options.only else startable(warn),
        rows=tuple(options.rows),
        cases=tuple(options.cases),
        repeat=options.repeat or (5 if options.quick else 50),
        quick=options.quick,
    )
    if not plan.steps():
        raise BenchmarkError(f"no case's name contains {' or '.join(plan.cases)}")
    return plan


def _replay(options: argparse.Namespace, console: Console) -> int:
    """Recorded arrivals through both policies and the peers' rules."""
    bounds = Bounds(
        target=options.target, max_inputs=options.max_inputs, max_nodes=options.max_nodes
    )
    cold_starts = (20.0,) if options.quick else COLD_STARTS
    cases = [Case(trace=trace, cold_start=each) for trace in TRACES for each in cold_starts]
    runs = [
        Run(case=case, contender=contender, bounds=bounds)
        for case in cases
        for contender in contenders()
    ]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("replays", total=len(runs))
        outcomes = measure_all(
            runs, jobs=options.jobs, done=lambda count: progress.update(bar, completed=count)
        )
    found = ratios(outcomes)
    # Imported last: matplotlib takes a second, and the processes that replay need none of it.
    from benchmarks.fleet import report as replay_report

    replay_report.show(console, outcomes, found)
    options.out.mkdir(parents=True, exist_ok=True)
    replay_report.save(options.out / "fleet-replay.json", bounds, outcomes, found)
    replay_report.draw(options.out / "fleet-replay.png", outcomes)
    written = f"{options.out / 'fleet-replay.json'}, {options.out / 'fleet-replay.png'}"
    console.print(f"Written: {written}", highlight=False)
    broken = exceeded(found)
    for text in broken:
        console.print(text, style="red", highlight=False)
    return 1 if broken else 0


def exceeded(found: Sequence[Ratio]) -> list[str]:
    """Which of the promised ceilings a policy of ours exceeds."""
    texts = []
    for ratio in found:
        if ratio.ours == HOLD.rule and ratio.worst > 1:
            texts.append(f"hold costs {ratio.worst:.2f} of {ratio.theirs} in a case")
        ceiling = CEILINGS.get(ratio.theirs)
        matched = ratio.ours == BREAK_EVEN.rule and ratio.how == SAME_SERVICE
        if matched and ceiling is not None and (ratio.mean is None or ratio.mean > ceiling):
            mean = "no" if ratio.mean is None else f"{ratio.mean:.2f}"
            texts.append(f"break-even costs {mean} of {ratio.theirs}, may cost {ceiling}")
    return texts
