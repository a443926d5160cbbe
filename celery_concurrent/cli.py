"""``celery -A app concurrent``: the app's concurrent tasks, their queues and slots.

Every ``celery`` command imports this module (entry point group ``celery.commands``), after the
choices of ``-P`` are made and before options are parsed: there the pool gets its name.
"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from celery_concurrent import (
    registration,  # noqa: F401  # the older option needs the hook
    streams,
)
from celery_concurrent.flower import install as flower_install
from celery_concurrent.marks import mark_of
from celery_concurrent.routing import queue_of
from celery_concurrent.worker import (
    commands,  # noqa: F401  # celery inspect asks for them
    install,
)

install.install()
install.extend_command_line()
flower_install.install()
# The command of a node that a provider started, with its output in a file.
if os.environ.get("CELERY_CONCURRENT_NODE"):
    streams.forgive()


@click.command(help="Show the app's concurrent tasks, their queues and slots.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object per task.")
@click.pass_context
def concurrent(context: click.Context, as_json: bool) -> None:
    """Print one line for each concurrent task of the app."""
    app = context.obj.app
    app.loader.import_default_modules()
    rows = [row for task in app.tasks.values() if (row := _row(app, task)) is not None]
    rows.sort(key=lambda row: (row["queue"], row["task"]))
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows and context.find_root().params.get("app") is None:
        click.echo("no app is named, so there is no task: celery -A module concurrent")
    elif not rows:
        click.echo("no task has @concurrent(max_inputs=...): nothing runs at once yet")
    else:
        _print_table(rows)


def _row(app: Any, task: Any) -> dict[str, Any] | None:
    mark = mark_of(task)
    if mark is None:
        return None
    return {
        "task": task.name,
        "queue": queue_of(app, task),
        "runs on": "event loop" if mark.is_async else "threads",
        "max_inputs": mark.limits.max_inputs,
        "target_inputs": mark.limits.target,
        "service": mark.group,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    cells = [columns, *([str(row[name] or "-") for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
