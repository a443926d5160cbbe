"""The last log lines of each input, kept in the node for those who ask for them.

Concurrent inputs mix their lines in a node's log. What always holds, under the one lock here:
no more than :data:`MOST_CHARACTERS` are kept, and of the inputs that said something, those are
forgotten first which have been silent the longest.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple

#: Characters of all lines that are kept.
MOST_CHARACTERS: Final = 4_000_000
#: Characters of one line, a traceback included; the rest is cut off.
LONGEST: Final = 4_000
#: What a line costs beside its characters, counted as such.
_OVERHEAD: Final = 200

_formatter = logging.Formatter()


class Line(NamedTuple):
    """A line: ``at`` is seconds since the epoch."""

    at: float
    level: str
    logger: str
    text: str


class InputLogs:
    """Of one node.

    Args:
        lines: of each input, 1 or more.
        characters: of all of them.
    """

    def __init__(self, lines: int, *, characters: int = MOST_CHARACTERS) -> None:
        self._lines = lines
        self._most = characters
        # Reentrant: the garbage collector may run code that logs while a line is being kept.
        self._lock = threading.RLock()
        self._inputs: OrderedDict[str, _Kept] = OrderedDict()
        self._characters = 0

    def keep(self, input_id: str, record: logging.LogRecord) -> None:
        """Keep a record's line; its arguments and its traceback's frames are let go of."""
        line = Line(record.created, record.levelname, record.name, _text(record))
        with self._lock:
            kept = self._inputs.setdefault(input_id, _Kept())
            self._inputs.move_to_end(input_id)
            if len(kept.lines) == self._lines:
                self._characters -= _cost(kept.lines.popleft())
                kept.dropped += 1
            kept.lines.append(line)
            self._characters += _cost(line)
            while self._characters > self._most and len(self._inputs) > 1:
                _, oldest = self._inputs.popitem(last=False)
                self._characters -= sum(map(_cost, oldest.lines))

    def of(self, input_id: str) -> dict[str, Any] | None:
        """Its ``lines``, the oldest first, and how many were ``dropped`` before; None for none."""
        with self._lock:
            kept = self._inputs.get(input_id)
            if kept is None:
                return None
            lines, dropped = list(kept.lines), kept.dropped
        return {"lines": [line._asdict() for line in lines], "dropped": dropped}


class _Kept:
    """What one input said."""

    __slots__ = ("dropped", "lines")

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.dropped = 0


def _text(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{_formatter.formatException(record.exc_info)}"
    except Exception as error:  # logging tells of it where it writes the line
        text = f"{record.msg!r} ({type(error).__name__} in its arguments)"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _cost(line: Line) -> int:
    return len(line.text) + _OVERHEAD
