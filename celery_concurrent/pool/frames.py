"""Which frames are cleared when an input has failed: its own, and nobody else's.

To free memory Celery clears the frames that an input's exception came through (``traceback_clear``
in app/trace.py, 5.6 and 5.7). Frames that run are spared, which is enough for one input per thread.
On an event loop an exception may have come from another coroutine: one that serves many, and told
one of them of an error by ``future.set_exception``, say, or one that still handles the same error.
Until Python 3.13, which refuses it, clearing the frame of a coroutine that waits closes the
coroutine: it never goes on, and whoever waits for it does not, either.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from celery.app import trace

_theirs = trace.traceback_clear
#: Of the code of what may wait in the midst of it.
_WAITS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def install() -> None:
    """From now on, in this process."""
    if sys.version_info < (3, 13):
        trace.traceback_clear = clear


def uninstall() -> None:
    """Put Celery's back."""
    trace.traceback_clear = _theirs


def clear(exc: Any = None) -> None:
    """As Celery's, but for the frames of coroutines and generators, which go by themselves."""
    traceback: TracebackType | None = (
        exc.__traceback__ if isinstance(exc, BaseException) else sys.exc_info()[2]
    )
    while traceback is not None:
        _clear(traceback.tb_frame)
        traceback = traceback.tb_next


def _clear(frame: FrameType) -> None:
    if not frame.f_code.co_flags & _WAITS:
        with suppress(RuntimeError):  # it runs
            frame.clear()
