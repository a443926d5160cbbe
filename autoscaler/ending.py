"""How a command of ours that runs on is told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def when_told(handler: Callable[[int, Any], None]) -> None:
    """Have ``handler`` called on Ctrl-C, SIGTERM, and when the terminal is closed.

    Not the last where that is ignored from the start: so ``nohup`` asks for it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)
