"""The events that Flower receives, passed on to those who keep account of the fleets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger(__name__)

#: How the types of our events begin.
GROUP: Final = "concurrency-"

Note = Callable[[dict[str, Any]], None]


def listen(flower: Any, *notes: Note) -> None:
    """Call these with each of our events, on the loop's thread; Flower's own account stays.

    Flower's thread looks ``on_event`` up when it begins to capture (2.2), so this comes before.
    """
    events, loop = flower.events, flower.io_loop
    flowers: Note = events.on_event
    note = _Noting(notes)

    def on_event(event: dict[str, Any]) -> None:
        flowers(event)
        if str(event.get("type")).startswith(GROUP):
            loop.add_callback(note, event)

    events.on_event = on_event


class _Noting:
    """Calls each of them, and is told of no error: anybody may have sent the event."""

    def __init__(self, notes: tuple[Note, ...]) -> None:
        self._notes = notes
        self._failed = False

    def __call__(self, event: dict[str, Any]) -> None:
        for note in self._notes:
            try:
                note(event)
            except Exception:
                # Once: who sends one such event sends a thousand.
                if not self._failed:
                    logger.warning(
                        "an event of type %.80r could not be read; further ones will not be told",
                        event.get("type"),
                        exc_info=True,
                    )
                self._failed = True
