"""What the person who waits sees: a line that moves, and one that stays per measurement."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from benchmarks.model import Entry
from benchmarks.report import number
from benchmarks.session import Step

if TYPE_CHECKING:
    from typing_extensions import Self


class Moving:
    """Lines on a terminal and in a log alike; the moving one only on a terminal.

    It has no thread of its own (steps refresh it): children are forked from here.
    """

    _EVERY = 0.2

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps = console, steps
        self._finished = 0
        self._shown_at = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def move(self, what: str, count: int, of: int) -> None:
        """Tell how far the current step is; not at every call."""
        now = time.monotonic()
        if not self._console.is_terminal or (count and now - self._shown_at < self._EVERY):
            return
        self._shown_at = now
        at = f"[{self._finished + 1}/{self._steps}] {what}"
        self._live.update(Text(f"{at}: {count:,} of {of:,}", style="dim"), refresh=True)

    def leave(self, *lines: str) -> None:
        """Leave lines about a step that has ended."""
        self._finished += 1
        for line in lines:
            text = f"{self._finished:>3}/{self._steps} {line}"
            self._live.console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


class Progress(Moving):
    """What contenders take."""

    def watch(self, step: Step, count: int) -> None:
        """Tell how far the current step is."""
        cell = step.cell
        self.move(f"{cell.broker} {cell.name} {step.contender.name}", count, cell.inputs)

    def done(self, entry: Entry) -> None:
        """Leave a line about a step that has ended."""
        cell, measured = entry.cell, entry.measured
        figures = ", ".join(f"{key} {number(value)}" for key, value in measured.figures.items())
        parts = [figures or "no figure", measured.note]
        if measured.lost:
            parts.append(f"lost {measured.lost:,}")
        text = "; ".join(part for part in parts if part)
        self.leave(f"{cell.broker:<8} {cell.name:<16} {entry.contender:<15} {text}")
