"""Inputs on their way from the broker into a node: pure.

A node tells what it has taken some moments after the broker has given it away. In between an
input is in no figure, and a fleet that was looked at then would seem to be needed less than it
is. But inputs do not vanish: all that were ever seen have ended, or wait, or are held by a node.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds for which an input counts of which nothing is heard: twice as long as a node may be
#: silent. After them it is none: revoked, expired, purged, or taken for a later time (ETA).
SETTLES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
    """What was seen so far.

    Args:
        seen: inputs ever seen, in the broker or in a node.
        missing: how many of them are in no figure now.
        since: when the first of these went missing; None when none are.
    """

    seen: int = 0
    missing: int = 0
    since: float | None = None

    def after(self, counted: int, now: float) -> Transit:
        """The same after another look.

        Args:
            counted: inputs that have ended, that wait, and that nodes hold, draining ones too.
            now: when they were counted, in seconds.
        """
        since = now if self.since is None else self.since
        if counted >= self.seen or now - since > SETTLES:
            return Transit(seen=counted)
        return Transit(seen=self.seen, missing=self.seen - counted, since=since)
