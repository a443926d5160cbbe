"""When to start a node again after others have crashed: pure, one per fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """What a fleet remembers of its crashes; times are the caller's, in seconds.

    A crash is a node that ended though nobody asked it to, be it with exit code 0, unless that
    came after ``steady`` seconds. The pause after the n-th crash in a row is
    ``first * 2 ** (n - 1)``, at most ``longest``; the fleet is *failing* after ``failing_after``
    of them. A node that served for ``steady`` seconds ends the row: one that crashes after a
    day's work is no sign that the fleet cannot start.

    Args:
        first: seconds of the first pause.
        longest: seconds of the longest.
        failing_after: crashes in a row, 1 or more.
        steady: seconds that a node must have lived for its crash to be the first of a row.
        crashes: so far, in a row.
        not_before: when the next node may be started.

    Raises:
        ConfigurationError: a value is out of range.
    """

    first: float = 1.0
    longest: float = 60.0
    failing_after: int = 3
    steady: float = 60.0
    crashes: int = 0
    not_before: float = 0.0

    def __post_init__(self) -> None:
        if self.first <= 0 or self.longest < self.first:
            raise ConfigurationError(
                f"first={self.first!r} and longest={self.longest!r} must be 0 < first <= longest"
            )
        if self.failing_after < 1:
            raise ConfigurationError(f"failing_after={self.failing_after!r} must be 1 or more")

    @property
    def failing(self) -> bool:
        """Whether the fleet's nodes cannot be kept alive."""
        return self.crashes >= self.failing_after

    def crashed(self, *, now: float, lived: float) -> Backoff:
        """A node has crashed, ``lived`` seconds after its start.

        Nodes that were started together crash together: within the pause that the first of
        them has brought, the others are part of the same failure and lengthen nothing.
        """
        if now < self.not_before:
            return self
        crashes = 1 if lived >= self.steady else self.crashes + 1
        # No power of a number that only grows: it would not fit a float one day.
        pause = min(self.longest, self.first * 2.0 ** min(crashes - 1, 60))
        return replace(self, crashes=crashes, not_before=now + pause)

    def served(self) -> Backoff:
        """A node has run an input: what ended the others does not end all of them."""
        return replace(self, crashes=0, not_before=0.0)

    def wait(self, now: float) -> float:
        """Seconds until a node may be started; 0 for at once."""
        return max(0.0, self.not_before - now)
