"""What a node is, beside its slots: its state, and what was noted of it last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

#: Loading (services' ``enter`` included), taking inputs, finishing what it has.
State = Literal["starting", "ready", "draining"]

#: Characters of a note at the most: it travels with each of the node's events.
NOTE_LENGTH: Final = 200


class Status:
    """The state of one node. Written and read on any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        # One attribute, so that a reader never sees a state with another one's time.
        self._entered: tuple[State, float] = ("starting", self._began)
        #: A sentence that people should see, such as why the node's limit was lowered.
        self.note: str | None = None
        #: By device that the node is pinned to, its ``name``, ``free`` and ``total`` bytes, and
        #: ``utilisation`` in percent when they were last read, each None when it is not told;
        #: None while nobody reads them.
        self.devices: Mapping[str, Mapping[str, Any]] | None = None
        self.on_change: Callable[[], None] = _nobody_asks

    @property
    def state(self) -> State:
        return self._entered[0]

    @property
    def age(self) -> float:
        """Seconds since the node began."""
        return self._clock() - self._began

    @property
    def state_age(self) -> float:
        """Seconds since it entered its state."""
        return self._clock() - self._entered[1]

    def enters(self, state: State) -> None:
        """The node is in this state now; one that drains stays so, whatever reconnects."""
        if self.state not in (state, "draining"):
            self._entered = (state, self._clock())
            self.on_change()

    def notes(self, text: str | None) -> None:
        """Have this told in the place of an earlier note, None for none. It must hold no secret."""
        self.note = None if text is None else text[:NOTE_LENGTH]
        self.on_change()


def _nobody_asks() -> None:
    """Until somebody wants to know of changes."""
