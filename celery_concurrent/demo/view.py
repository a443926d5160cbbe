"""How a running replay looks: a live screen in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from celery_concurrent.demo.fleet import Decision, Fleet, Node
from celery_concurrent.demo.measure import Snapshot, percentile, seconds
from celery_concurrent.limits import Limits

_BAR_WIDTH = 20
_HISTORY = 50
_CELL_EVERY = 1.0
_LINE_EVERY = 5.0
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STYLES = {"starting": "yellow", "ready": "green", "draining": "magenta"}


@contextmanager
def shown(console: Console, *, limits: Limits, rows: int) -> Iterator[Callable[[Snapshot], None]]:
    """What shows snapshots: a live screen if the console can redraw, plain lines if not.

    ``rows`` is the room that is kept for nodes, so that the screen does not jump.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainLines(partial(console.print, highlight=False, soft_wrap=True)).show
        return
    history = History(limits)
    # Redrawn by show() only: no second thread, and what is on screen is one snapshot.
    with Live(console=console, auto_refresh=False) as live:

        def show(snapshot: Snapshot) -> None:
            history.note(snapshot)
            live.update(picture(snapshot, limits, history, rows), refresh=True)

        yield show


class History:
    """Demand and capacity, once a second: what the rows of blocks show."""

    def __init__(self, limits: Limits) -> None:
        self.demand: list[int] = []
        self.capacity: list[int] = []
        self._limits = limits
        self._next = 0.0

    def note(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed < self._next:
            return
        self._next += _CELL_EVERY
        known = snapshot.fleet.demand
        before = self.demand[-1] if self.demand else 0
        self.demand.append(before if known is None else known)
        self.capacity.append(snapshot.fleet.count("ready") * self._limits.max_inputs)

    def blocks(self) -> tuple[str, str]:
        """The last cells of both, on one scale."""
        demand, capacity = self.demand[-_HISTORY:], self.capacity[-_HISTORY:]
        highest = max((*demand, *capacity), default=0)
        return sparkline(demand, highest), sparkline(capacity, highest)


class PlainLines:
    """A line each five seconds and for each decision, and the last one; for logs and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._next = 0.0
        self._told: Decision | None = None
        self._begun = False

    def show(self, snapshot: Snapshot) -> None:
        self._tell_decisions(snapshot)
        if snapshot.elapsed >= self._next or snapshot.finished == snapshot.total:
            self._next = snapshot.elapsed + _LINE_EVERY
            self._write(line(snapshot))

    def _tell_decisions(self, snapshot: Snapshot) -> None:
        decisions = snapshot.fleet.decisions
        # What was decided before the replay is no news.
        if self._begun:
            for decision in decisions:
                if self._told is None or decision.at > self._told.at:
                    self._write(f"{snapshot.elapsed:5.1f} s  {told(decision)}")
        self._begun = True
        self._told = decisions[-1] if decisions else self._told


def told(decision: Decision) -> str:
    """A decision as one line of text."""
    return f"{decision.before} -> {decision.after} nodes: {decision.reason}"


def line(snapshot: Snapshot) -> str:
    """A snapshot as one line of text."""
    fleet = snapshot.fleet
    return (
        f"{snapshot.elapsed:5.1f} s  {snapshot.finished}/{snapshot.total} done  "
        f"demand {known(fleet.demand)} (backlog {known(fleet.backlog)}, "
        f"running {fleet.running})  nodes {fleet.counted()}  "
        f"{snapshot.recent_throughput:.1f}/s  "
        f"wait p50 {seconds(percentile(snapshot.recent_waits, 0.5))}  "
        f"p99 {seconds(percentile(snapshot.recent_waits, 0.99))}"
    )


def picture(snapshot: Snapshot, limits: Limits, history: History, rows: int) -> RenderableType:
    """A snapshot as a screen: demand and capacity, the nodes, the last decision, the pace."""
    fleet = snapshot.fleet
    return Group(
        _load(fleet, limits, history),
        _nodes(fleet.nodes, limits, rows),
        _decisions(fleet),
        _pace(snapshot),
        _progress(snapshot),
    )


def _load(fleet: Fleet, limits: Limits, history: History) -> RenderableType:
    demand, capacity = history.blocks()
    ready = fleet.count("ready")
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "demand",
        Text(known(fleet.demand), style="bold cyan", justify="right"),
        Text(demand, style="cyan"),
    )
    grid.add_row("", "", f"backlog {known(fleet.backlog)}, running {fleet.running}")
    grid.add_row(
        "capacity",
        Text(str(ready * limits.max_inputs), style="bold green", justify="right"),
        Text(capacity, style="green"),
    )
    grid.add_row("", "", f"{ready} ready nodes: target {ready * limits.target}")
    return grid


def _nodes(nodes: Sequence[Node], limits: Limits, rows: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in (("node", 16), ("device", 15), ("state", 8), ("inputs", _BAR_WIDTH + 9)):
        table.add_column(name, min_width=width, no_wrap=True)
    for node in nodes:
        state = Text(node.state, style=_STYLES.get(node.state, ""))
        table.add_row(node.name, node.device, state, bar(node.running, limits))
    for _ in range(rows - len(nodes)):
        table.add_row()
    return table


def _decisions(fleet: Fleet) -> RenderableType:
    last = told(fleet.decisions[-1]) if fleet.decisions else "none yet"
    lines = (f"last decision  {last}", f"now  {fleet.reason}")
    return Group(*(Text(text, no_wrap=True, overflow="ellipsis") for text in lines))


def _pace(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("", "throughput", "wait p50", "wait p99", "latency p50", "latency p99"):
        table.add_column(name, justify="right" if name else "left")
    for name, pace, waits, latencies in (
        (
            "last 5 s",
            snapshot.recent_throughput,
            snapshot.recent_waits,
            snapshot.recent_latencies,
        ),
        ("whole run", snapshot.throughput, snapshot.waits, snapshot.latencies),
    ):
        shares = [percentile(of, share) for of in (waits, latencies) for share in (0.5, 0.99)]
        table.add_row(name, f"{pace:.1f}/s", *map(seconds, shares))
    return table


def _progress(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(f"{snapshot.elapsed:5.1f} s"),
        ProgressBar(total=snapshot.total, completed=snapshot.finished, width=_BAR_WIDTH),
        Text(f"{snapshot.finished:,} of {snapshot.total:,} inputs"),
    )
    return grid


def bar(running: int, limits: Limits) -> Text:
    """The slots of a node: taken up to target, taken above it, free."""
    width = min(limits.max_inputs, _BAR_WIDTH)
    per_cell = limits.max_inputs / width
    target = round(limits.target / per_cell)
    taken = min(width, round(running / per_cell))
    text = Text()
    text.append("█" * min(taken, target), style="green")
    text.append("█" * max(0, taken - target), style="yellow")
    text.append("░" * (width - taken), style="dim")
    text.append(f" {running:2} of {limits.max_inputs}")
    return text


def sparkline(values: Sequence[int], highest: int) -> str:
    """One block per value; an empty one is zero and nothing else is."""
    return "".join(
        _BLOCKS[0 if value == 0 else max(1, round(value / highest * (len(_BLOCKS) - 1)))]
        for value in values
    )


def known(count: int | None) -> str:
    return "unknown" if count is None else str(count)
