"""From the protocol of a run to the lines of its table. Pure: entries in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import Contender
from benchmarks.model import Better, Broker, Cell, Entry, Figure
from benchmarks.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One contender's median of one figure, and what must be said with it.

    ``value`` is None when it has no figure; ``lost`` and ``twice`` are sums over the
    repetitions, the note is the last one that was not empty.
    """

    value: float | None
    lost: int = 0
    twice: int = 0
    note: str = ""

    @property
    def is_sound(self) -> bool:
        return self.value is not None and not self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of one cell for everyone; ratios above 1 mean that we are better."""

    cell: Cell
    title: str
    figure: Figure
    values: Mapping[str, Value]
    ratios: Mapping[str, float]


def summarise(
    entries: Sequence[Entry], rows: Sequence[Row], contenders: Sequence[Contender]
) -> list[Line]:
    """The lines in the order of the rows, one broker after the other."""
    lines: list[Line] = []
    for broker in dict.fromkeys(entry.cell.broker for entry in entries):
        here = [entry for entry in entries if entry.cell.broker == broker]
        for row in rows:
            for cell in dict.fromkeys(e.cell for e in here if e.cell.row == row.name):
                lines += [_line(here, row, cell, figure, contenders) for figure in row.figures]
    return lines


def _line(
    entries: Sequence[Entry],
    row: Row,
    cell: Cell,
    figure: Figure,
    contenders: Sequence[Contender],
) -> Line:
    values = {c.name: _value(entries, c.name, cell.name, figure) for c in contenders}
    title = f"{row.title}, {cell.kind}" + (f", {figure.title}" if figure.title else "")
    # Celery's pools run no coroutines: an async cell is compared with what a user of theirs
    # would write instead, the same input as a plain function.
    plain = f"{cell.row}-sync"
    rivals = {
        title: [_value(entries, c.name, plain, figure) for c in contenders if c.family == family]
        for title, family in (("best of Celery", "pool"), ("late acks", "late pool"))
    }
    for contender in contenders:
        if contender.family in {"peer", "limit"}:
            rivals[contender.name] = [values[contender.name]]
    ours = next((v for c in contenders if c.family == "ours" and (v := values[c.name])), None)
    return Line(
        cell=cell,
        title=title,
        figure=figure,
        values={name: value for name, value in values.items() if value is not None},
        ratios=_ratios(ours, rivals, figure.better),
    )


def _value(entries: Sequence[Entry], name: str, cell: str, figure: Figure) -> Value | None:
    """None when the contender was not in this cell at all."""
    mine = [e.measured for e in entries if e.contender == name and e.cell.name == cell]
    if not mine:
        return None
    numbers = [m.figures[figure.key] for m in mine if figure.key in m.figures]
    return Value(
        value=median(numbers) if numbers else None,
        lost=sum(m.lost for m in mine),
        twice=sum(m.twice for m in mine),
        note=next((m.note for m in reversed(mine) if m.note), ""),
    )


def _ratios(
    ours: Value | None, rivals: Mapping[str, Sequence[Value | None]], better: Better
) -> dict[str, float]:
    """Who loses results is nobody to be compared with."""
    if ours is None or ours.value is None:
        return {}
    ratios = {}
    for name, values in rivals.items():
        sound = [v.value for v in values if v is not None and v.value is not None and not v.lost]
        if not sound:
            continue
        best = max(sound) if better == "more" else min(sound)
        top, bottom = (ours.value, best) if better == "more" else (best, ours.value)
        if bottom > 0:
            ratios[name] = top / bottom
    return ratios


def behind(lines: Sequence[Line], *, level: float = 1.0) -> list[tuple[Line, float]]:
    """The lines on which we are not level with the best of Celery's own pools."""
    found = [(line, line.ratios.get("best of Celery", level)) for line in lines]
    return [(line, ratio) for line, ratio in found if ratio < level]


def losses(entries: Sequence[Entry]) -> dict[tuple[str, Broker, str], int]:
    """How many inputs each contender lost, by broker and cell; only those that did."""
    lost: dict[tuple[str, Broker, str], int] = {}
    for entry in entries:
        if entry.measured.lost:
            key = (entry.contender, entry.cell.broker, entry.cell.name)
            lost[key] = lost.get(key, 0) + entry.measured.lost
    return lost
