"""What becomes of a process in which a call runs on that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Seconds after which it is told of.
DEAF_AFTER = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A node's answer to it.

    Args:
        timeout: seconds that it may run on.
        drain: makes the node leave, to be replaced; may be called on any thread.
    """

    timeout: float
    drain: Callable[[], None]


_watches: list[Watch] = []


def attach(watch: Watch) -> None:
    """A node has started."""
    _watches.append(watch)


def detach(watch: Watch) -> None:
    """It has stopped, or never started."""
    if watch in _watches:
        _watches.remove(watch)


def current() -> Watch | None:
    """The node's, where this process is one."""
    return _watches[-1] if _watches else None
