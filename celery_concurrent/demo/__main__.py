"""Replay through both fleets, show, compare; on every way out nothing is left running."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from celery_concurrent.demo.errors import DemoError, InterruptedBySignalError
from celery_concurrent.demo.trace import shipped_trace
from celery_concurrent.errors import ConcurrencyError, MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

    from celery_concurrent.autoscaler.replay import Arrival
    from celery_concurrent.demo.runs import Runs

_NEEDS = ("rich", "matplotlib")


class Interrupt:
    """Notes the first signal; ``check`` raises it where the demo can stop in order.

    A second signal ends the process at once; broker, autoscaler and nodes end with it.
    """

    def __init__(self) -> None:
        self._signum: int | None = None

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note)

    def check(self) -> None:
        if self._signum is not None:
            raise InterruptedBySignalError(self._signum)

    def _note(self, signum: int, _: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signum, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """The demo's exit status: 0, 1 after a problem, 128 + n after signal n."""
    options = _parse(argv)
    interrupt = Interrupt()
    interrupt.install()
    try:
        _require_libraries()
        return _demo(options, interrupt)
    except InterruptedBySignalError as stop:
        _complain("\ndemo interrupted; autoscaler, nodes and broker are ended")
        return 128 + stop.signum
    except (ConcurrencyError, OSError) as error:
        _complain(f"demo: {error}")
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m celery_concurrent.demo",
        description="Replay a production trace through an autoscaled fleet of Celery nodes, and "
        "through a fixed one. Needs no GPU and no broker.",
    )
    parser.add_argument(
        "--speed", type=_positive(float), default=12.0, help="times the trace's pace (default: 12)"
    )
    parser.add_argument("--limit", type=_positive(int), metavar="N", help="only the first N inputs")
    parser.add_argument(
        "--plot",
        type=Path,
        default=Path("celery-concurrent-demo.png"),
        metavar="FILE",
        help="where the plot goes (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _complain(text: str) -> None:
    """On stderr; where the terminal or the reader is gone, nowhere."""
    try:
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # The interpreter flushes both once more at its end; let that reach nobody, too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
        return value

    return parse


def _require_libraries() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'the demo needs {", ".join(missing)}: pip install "celery-concurrent[demo]"'
        )


def _demo(options: argparse.Namespace, interrupt: Interrupt) -> int:
    # Only now: these import the libraries that were looked for.
    from rich.console import Console

    from celery_concurrent.demo.app import LIMITS
    from celery_concurrent.demo.runs import run_both
    from celery_concurrent.demo.summary import problems, summary

    arrivals = shipped_trace()[: options.limit]
    _require_writable(options.plot)
    console = Console()
    _say(console, _introduction(arrivals, options.speed))
    runs = run_both(
        arrivals,
        speed=options.speed,
        interrupted=interrupt.check,
        console=console,
        say=lambda text: _say(console, text),
    )
    found = [text for ledger in (runs.autoscaled, runs.fixed) for text in problems(ledger, LIMITS)]
    if runs.status != 0:
        found.append(f"the autoscaler did not leave in order: exit status {runs.status}")
    _say(console, f"\n{summary(runs.autoscaled, runs.fixed, LIMITS, found)}")
    _say(console, f"  {'plot':<16} {_plot(runs, options.plot)}")
    return 1 if found else 0


def _plot(runs: Runs, path: Path) -> Path:
    from celery_concurrent.demo.app import LIMITS
    from celery_concurrent.demo.plot import draw

    draw([("autoscaled", runs.autoscaled), ("fixed", runs.fixed)], LIMITS, path=path)
    return path.resolve()


def _require_writable(path: Path) -> None:
    """Before the replay: a minute's run should not end in a file that cannot be written."""
    folder = path.resolve().parent
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise DemoError(f"cannot write the plot to {path}; name another file with --plot")


def _introduction(arrivals: Sequence[Arrival], speed: float) -> str:
    span = arrivals[-1].at
    mean = sum(arrival.seconds for arrival in arrivals) / len(arrivals)
    return (
        f"Replaying {len(arrivals):,} requests of the Azure LLM inference trace 2023 (code) as\n"
        f"Celery inputs, twice: {span:.0f} s at {speed:g} times their pace.\n"
        f"GPUs are simulated, and an input sleeps for as long as a model would read its prompt,\n"
        f"{mean:.1f} s on average. Broker, autoscaler, nodes, inputs and results are real.\n"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
