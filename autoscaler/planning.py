"""``celery fleet plan``: read the trace, replay it, print and draw what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery_concurrent.autoscaler.plan import Plan, as_data, choose, make_plan, with_knobs
from celery_concurrent.autoscaler.traces import read_trace
from celery_concurrent.errors import ConfigurationError, MissingExtraError
from celery_concurrent.fleets import fleets_of

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    Args:
        queue: whose fleet; None for the only one.
        knobs: in the place of the fleet's own; None for those that are not given.
        trace: the file of arrivals.
        duration: seconds that inputs run of which the trace does not tell it.
        start_seconds: from a node's order until it takes inputs.
        png: the picture's file, None for none.
    """

    queue: str | None
    knobs: Mapping[str, Any]
    trace: Path
    duration: float | None
    start_seconds: float
    png: Path | None


def run(app: Any, options: Options, console: Console | None) -> None:
    """Plan one fleet of the app; nothing is asked, and nothing started.

    Args:
        app: the Celery app.
        options: as above.
        console: where the table goes; None for JSON on stdout.

    Raises:
        ConcurrencyError: an option, the app or the trace is wrong; or a library is missing.
    """
    # Errors first: a long replay should not end in one.
    draw = None if options.png is None else _drawing(options.png)
    app.loader.import_default_modules()
    fleet = with_knobs(choose(fleets_of(app), options.queue), options.knobs)
    arrivals = read_trace(options.trace, seconds=options.duration)
    with _progress() as tell:
        plan = make_plan(fleet, arrivals, start_seconds=options.start_seconds, progress=tell)
    if draw is not None:
        draw(plan)
    if console is None:
        click.echo(json.dumps(as_data(plan)))
        return
    from celery_concurrent.autoscaler import plantable

    console.print(plantable.table(plan))
    if options.png is not None:
        click.echo(f"drawn: {options.png}")


def _drawing(path: Path) -> Callable[[Plan], None]:
    try:
        from celery_concurrent.autoscaler import planplot
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'--png needs {error.name}: pip install "celery-concurrent[demo]"'
        ) from error
    if not os.access(path.resolve().parent, os.W_OK):
        raise ConfigurationError(f"cannot write to {path}: name another file with --png")

    def draw(plan: Plan) -> None:
        try:
            planplot.draw(plan, path)
        except OSError as error:
            raise ConfigurationError(f"cannot write to {path}: {error}") from error

    return draw


@contextmanager
def _progress() -> Iterator[Callable[[float], None] | None]:
    """A bar on stderr where a person looks at it, gone when it is done."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:  # JSON needs no library
        yield None
        return
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("replaying", total=1.0)
        yield lambda share: bar.update(task, completed=share)
