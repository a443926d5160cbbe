"""The progress bar of a map, for programs with a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from celery_concurrent.errors import MissingExtraError


class Progress(Protocol):
    """Is told how far it is."""

    def tell(self, published: int, done: int) -> None:
        """Numbers of inputs until now."""


class Silent:
    """Shows nothing."""

    def tell(self, published: int, done: int) -> None:
        pass


class Bar:
    """A line on the terminal: results of inputs, or what is published where nobody waits.

    Args:
        bar: rich's, running.
        line: the bar's one task.
        waits: whether results are waited for.
    """

    def __init__(self, bar: Any, line: Any, *, waits: bool) -> None:
        self._bar = bar
        self._line = line
        self._waits = waits

    def tell(self, published: int, done: int) -> None:
        completed = done if self._waits else published
        self._bar.update(self._line, completed=completed, published=published)


@contextmanager
def shown(name: str, total: int | None, *, is_wanted: bool, waits: bool) -> Iterator[Progress]:
    """A bar while the block runs; nothing when it is not wanted.

    Raises:
        MissingExtraError: rich is not installed.
    """
    if not is_wanted:
        yield Silent()
        return
    try:
        from rich import progress
    except ImportError as error:
        raise MissingExtraError(
            'progress=True needs rich: pip install "celery-concurrent[progress]"'
        ) from error
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("({task.fields[published]} published)"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns) as bar:
        line = bar.add_task(name, total=total, published=0)
        yield Bar(bar, line, waits=waits)
