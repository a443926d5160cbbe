"""What is measured and what came of it: frozen data that crosses every seam here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Broker = Literal["redis", "rabbitmq"]
Kind = Literal["async", "sync"]
TaskName = Literal["noop", "nap", "model", "publish"]
Better = Literal["more", "less"]
Family = Literal["ours", "pool", "late pool", "peer", "limit"]

BROKERS: tuple[Broker, ...] = ("redis", "rabbitmq")
KINDS: tuple[Kind, ...] = ("async", "sync")


class BenchmarkError(Exception):
    """The measuring itself cannot go on: a server did not start or is not installed.

    The message names what is missing; nothing was concluded about any contender.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement of one row: what every contender is given.

    ``slots`` is how many inputs may run at once, ``inputs`` how many are published and
    ``seconds`` how long each sleeps (the no-op ignores it); ``payload`` is the bytes of text that
    each carries. ``budget`` is how long the contender may take, counted from its first input's
    start, and ``patience`` how long until that. ``families`` are who takes part, None for all
    who can.
    """

    row: str
    broker: Broker
    kind: Kind
    task: TaskName
    slots: int
    inputs: int
    seconds: float = 0.0
    budget: float = 30.0
    patience: float = 20.0
    payload: int = 0
    measures_rate: bool = False
    counts_calls: bool = False
    families: tuple[Family, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.row}-{self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How one number of a row is shown: its key, title, unit and which way is better."""

    key: str
    title: str
    unit: str
    better: Better


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one contender did in one cell.

    ``lost`` inputs have no result and are not in the broker either: nobody will ever run
    them again. ``twice`` inputs started more than once. ``note`` is empty when the
    contender did all that it was given.
    """

    figures: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    note: str = ""
    detail: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the protocol of a run: who did what, in which repetition."""

    contender: str
    cell: Cell
    repeat: int
    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a contender's node is started."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
