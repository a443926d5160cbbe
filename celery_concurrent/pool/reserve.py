"""How many inputs a node fetches beside those in its slots: by how long they last.

A slot that comes back stays empty for a round trip to the broker, unless the next input is here.
That is much where inputs are short. Where they last it is nothing, and an input in reserve would
wait, though another node had a slot for it.
"""

from __future__ import annotations

from typing import Any, Final

from celery_concurrent.pool.slots import Group

#: Seconds that an input waits in reserve at the most, while inputs stay as short as they were.
WAIT: Final = 0.025
#: Seconds of the longest input of late, above which its group has no reserve. Where many slots come
#: back one by one they may all be taken at once a moment later.
SHORT: Final = 0.1
#: Slots of a group that come back per second, from which on it has no reserve: the node is held up
#: by its processor, not by waiting for a broker, and a take brings many at once.
BUSY: Final = 2_000.0
#: Inputs in reserve at the most: what Celery's pools prefetch for each slot.
MOST: Final = 4
#: "Of late" is the last so many inputs, up to twice as many.
WINDOW: Final = 100


class _Lately:
    """How long a group's inputs were in their slots."""

    __slots__ = ("before", "count", "longest")

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        #: Of the window before this one; None in the first.
        self.before: float | None = None


class Reserves:
    """The reserves of a node's groups; all on the settling thread.

    What always holds: a group has a reserve only when an input has ended in each of its slots, and
    never a larger one than it has slots.

    Args:
        fixed: so many whatever happens; None goes by how long inputs last.
    """

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._lately: dict[str, _Lately] = {}

    @property
    def is_fixed(self) -> bool:
        """Whether the user has set it."""
        return self._fixed is not None

    def ended(self, group: str, seconds: float) -> None:
        """An input of the group was in its slot for so long."""
        lately = self._lately.get(group)
        if lately is None:
            lately = self._lately[group] = _Lately()
        lately.count += 1
        lately.longest = max(lately.longest, seconds)
        if lately.count >= WINDOW:
            lately.before, lately.longest, lately.count = lately.longest, 0.0, 0

    def lasts(self, group: str) -> None:
        """What runs in the group now lasts, though it has not ended yet."""
        self.ended(group, SHORT + WAIT)

    def of(self, group: Group[Any]) -> int:
        """How many inputs of the group to fetch beside those in its slots, now."""
        if self._fixed is not None:
            return self._fixed
        lately = self._lately.get(group.name)
        if lately is None:
            return 0
        slots, longest = group.allowed, lately.longest
        if lately.before is None:
            if lately.count < min(slots, WINDOW):
                return 0
        elif lately.before > longest:
            longest = lately.before
        if longest > SHORT or slots >= BUSY * longest:
            return 0
        return min(MOST, slots, int(WAIT * slots / longest))
