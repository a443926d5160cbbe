"""Waiting for a condition with a deadline: the only place in the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_AGAIN = 0.02


def wait_for(
    condition: Callable[[], T], timeout: float = 10.0, *, what: str | Callable[[], str] = ""
) -> T:
    """Return what ``condition`` returns as soon as that is true; look at least once.

    ``what`` says what was waited for, or is called at the deadline to say how it stands.
    What the condition raises is raised.

    Raises:
        AssertionError: it was still false after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        # The clock is read first: a condition that became true in the last pause counts.
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            told = what() if callable(what) else what
            raise AssertionError(
                f"{told or 'the condition'} did not come true within {timeout} s; "
                f"it was {value!r} at last"
            )
        time.sleep(_LOOK_AGAIN)
