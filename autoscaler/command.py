"""``celery -A app autoscaler`` and ``celery -A app fleet``.

Every ``celery`` command imports this module: what it needs is imported where it is needed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from celery_concurrent.errors import ConcurrencyError

_WIDEST = 1_000

#: The knobs as options, of both commands.
_KNOBS = (
    click.option("--min-nodes", type=int, help="Nodes that stay without any demand."),
    click.option("--max-nodes", type=int, help="Nodes that there are at the most."),
    click.option("--buffer-nodes", type=int, help="Nodes beyond those that the demand asks for."),
    click.option("--scaledown-window", type=float, help="Seconds that an unneeded node is kept."),
    click.option("--gpus", type=int, help="Devices of each node."),
    click.option("--nodes-per-gpu", type=int, help="Nodes that share one device."),
    click.option("--policy", help='"hold" or "break-even".'),
    click.option("--price", type=float, help="What break-even pays to spare a second of waiting."),
)

_TRACE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_NEW_TRACE = click.Path(dir_okay=False, path_type=Path)
#: As ``celery worker`` takes them: nodes get the same.
_LEVELS = click.Choice(
    ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"], case_sensitive=False
)


class _Seconds(click.FloatRange):
    """So many seconds, 0 or more."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):  # nan passes for a number in any range
            self.fail(f"{value} is no number of seconds: write one, as in 600", param, ctx)
        return seconds


_SECONDS = _Seconds(min=0)


def _knobs(command: Any) -> Any:
    for option in reversed(_KNOBS):
        command = option(command)
    return command


@click.command(help="Keep as many nodes for each queue as its demand asks for.")
@_knobs
@click.option("--simulate-gpus", type=click.IntRange(min=0), help="N devices that are not there.")
@click.option("--drain-timeout", type=_SECONDS, default=600.0, help="Seconds a node may drain.")
@click.option("--fresh", is_flag=True, help="Start each node as a process of its own, unforked.")
@click.option("--leave-nodes", is_flag=True, help="At the end, let the nodes run on: for restarts.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics.")
@click.option("--metrics-address", default="127.0.0.1", show_default=True, help="And where.")
@click.option("-l", "--loglevel", type=_LEVELS, default="INFO", help="Its own and its nodes'.")
@click.pass_context
def autoscaler(context: click.Context, /, **options: Any) -> None:
    """Run until a signal; then drain the nodes and leave."""
    from celery_concurrent.autoscaler import running

    app = context.obj.app
    _finish(
        lambda: running.run(
            app,
            app_name(sys.argv),
            running.Options(
                knobs={name: options.pop(name) for name in _knob_names(options)}, **options
            ),
        )
    )


@click.group(help="Look at the fleets of a running autoscaler, and change them.")
def fleet() -> None:
    """The commands below."""


@fleet.command(help="Show each fleet: demand, nodes, the last decision and its reason.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Print what the autoscaler sees."""
    answer = _ask(context, "status")
    if as_json:
        click.echo(json.dumps(answer))
        return
    _print(answer)


@fleet.command(help="Show the fleets live, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, help="Seconds.")
@click.pass_context
def watch(context: click.Context, interval: float) -> None:
    """Print the status over and over, in place; Ctrl-C is how it ends, and no failure."""
    import time
    from contextlib import suppress

    from celery_concurrent.autoscaler import show

    live = _rich("live", "`fleet status --json`").Live(auto_refresh=False, screen=False)
    with suppress(KeyboardInterrupt), live:
        while True:
            live.update(show.everything(_ask(context, "status")), refresh=True)
            time.sleep(interval)


@fleet.command("set", help="Change knobs of a queue's fleet; --reset takes all changes back.")
@click.argument("queue")
@_knobs
@click.option("--reset", is_flag=True, help="First take back what was set before.")
@click.pass_context
def set_(context: click.Context, /, queue: str, reset: bool, **knobs: Any) -> None:
    """Change a running fleet."""
    values = {name: knobs[name] for name in _knob_names(knobs) if knobs[name] is not None}
    if not values and not reset:
        raise click.UsageError("name a knob to change, as in --max-nodes 8, or --reset")
    answer = _ask(context, "set", {"queue": queue, "values": values, "reset": reset})
    told = ", ".join(f"{name}={value}" for name, value in answer["overrides"].items())
    click.echo(f"{queue}: overrides in force: {told or 'none'}")


@fleet.command(help="Drain the fleets of these queues, and keep them without nodes until resumed.")
@click.argument("queues", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All fleets.")
@click.pass_context
def drain(context: click.Context, queues: Sequence[str], everything: bool) -> None:
    """Have nodes finish what they have, and leave."""
    chosen = _chosen(queues, everything)
    try:
        answer = _ask(context, "drain", chosen)
    except _NobodyError:
        if not everything:
            raise
        _drain_what_was_left(context.obj.app)
        return
    click.echo(f"draining: {', '.join(answer['queues'])}. `fleet resume` lets them run again")


@fleet.command(help="Let drained fleets follow their demand again.")
@click.argument("queues", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All fleets.")
@click.pass_context
def resume(context: click.Context, queues: Sequence[str], everything: bool) -> None:
    """Take a drain by hand back."""
    answer = _ask(context, "resume", _chosen(queues, everything))
    click.echo(f"resumed: {', '.join(answer['queues'])}")


@fleet.command(help="Replay recorded arrivals: what the fleet of QUEUE would have done.")
@click.argument("queue", required=False)
@click.option("--trace", type=_TRACE, required=True, help="CSV or JSON lines, gzipped or not.")
@click.option("--duration", type=_SECONDS, help="Run time of inputs for which the trace has none.")
@click.option(
    "--start-seconds",
    type=_SECONDS,
    default=5.0,
    show_default=True,
    help="From a node's start until it takes inputs.",
)
@_knobs
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw it, too.")
@click.pass_context
def plan(context: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Print a table; nothing is asked, and nothing started."""
    from celery_concurrent.autoscaler import planning

    knobs = {name: options.pop(name) for name in _knob_names(options)}
    _finish(
        lambda: planning.run(
            context.obj.app,
            planning.Options(knobs=knobs, **options),
            None if as_json else _console(),
        )
    )


@fleet.command(help="Write a trace of the inputs of QUEUE's tasks, until Ctrl-C.")
@click.argument("queue", required=False)
@click.option(
    "--trace", type=_NEW_TRACE, required=True, help="A file that is not there yet: JSON lines."
)
@click.option("--seconds", type=_SECONDS, help="Stop by itself after so many.")
@click.pass_context
def record(
    context: click.Context, /, *, queue: str | None, trace: Path, seconds: float | None
) -> None:
    """Listen to the task events of publishers and nodes."""
    from celery_concurrent.autoscaler import recording

    _finish(lambda: recording.run(context.obj.app, queue, trace, seconds))


class _NobodyError(click.ClickException):
    """No autoscaler of this app answers."""


def app_name(words: Sequence[str]) -> str:
    """What ``-A`` said: nodes are started with the same.

    Raises:
        click.UsageError: nothing was said.
    """
    for place, word in enumerate(words):
        if word in ("-A", "--app") and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("--app="):
            return word.removeprefix("--app=")
        if word.startswith("-A") and len(word) > 2:
            return word[2:]
    name = os.environ.get("CELERY_APP")
    if not name:
        raise click.UsageError("name the app: celery -A module autoscaler")
    return name


def _chosen(queues: Sequence[str], everything: bool) -> dict[str, list[str] | None]:
    """Which fleets a command is for, as the autoscaler wants to hear it: None for all."""
    if queues and everything:
        raise click.UsageError("name the queues, or --all, not both")
    if not queues and not everything:
        raise click.UsageError("name the queues, or --all")
    return {"queues": list(queues) or None}


def _knob_names(options: Iterable[str]) -> list[str]:
    from celery_concurrent.knobs import NAMES

    return [name for name in NAMES if name in options]


def _ask(context: click.Context, command: str, arguments: Any = None) -> dict[str, Any]:
    from kombu.exceptions import OperationalError

    from celery_concurrent.autoscaler import mailbox

    app = context.obj.app
    try:
        answers = mailbox.ask(app, command, arguments)
    except OperationalError as error:
        _require_app(context)
        raise click.ClickException(
            f"the broker at {app.connection_for_write().as_uri()} does not answer, and by it the "
            f"autoscaler is asked: {error}"
        ) from error
    if not answers:
        _require_app(context)
        raise _NobodyError(
            "no autoscaler of this app answers at its broker. Start one with `celery -A app "
            "autoscaler`. Nodes that a killed one has left run on: the next one adopts them, and "
            "without one `celery -A app fleet drain --all`, on their machine, has them leave"
        )
    if "error" in answers[0]:
        raise click.ClickException(answers[0]["error"])
    return answers[0]


def _require_app(context: click.Context) -> None:
    """Where nobody was reached: without ``-A`` it is Celery's default app that was asked for.

    Raises:
        click.UsageError: no app was named.
    """
    if context.find_root().params.get("app") is None:
        raise click.UsageError(f"name the app: celery -A module fleet {context.info_name}")


def _drain_what_was_left(app: Any) -> None:
    """Nodes of an autoscaler that was killed: adopt them, and have them leave."""
    from celery_concurrent.autoscaler import running

    count = _finish(lambda: running.drain_left(app, app_name(sys.argv)))
    click.echo(f"no autoscaler runs; {count} nodes that one had left are gone")


def _print(answer: dict[str, Any]) -> None:
    from celery_concurrent.autoscaler import show

    _console().print(show.everything(answer))


def _console() -> Any:
    # A pipe has no width to fit into, and what is cut off is no use to a reader.
    width = None if sys.stdout.isatty() else _WIDEST
    return _rich("console").Console(highlight=False, width=width)


def _rich(module: str, instead: str = "--json") -> Any:
    import importlib

    try:
        return importlib.import_module(f"rich.{module}")
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f'tables need rich: pip install "celery-concurrent[gpu]". {instead} works without'
        ) from error


def _finish(call: Any) -> Any:
    try:
        return call()
    except ConcurrencyError as error:
        raise click.ClickException(str(error)) from error
