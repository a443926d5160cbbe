"""How Celery's requests reach the acknowledgement of their message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

logger = get_logger(__name__)


class SettlingCall:
    """An ack, or a reject, that a request will ask for: in the place of vine's promise.

    Celery's consumer makes two for each message, and the request holds them for as long as its
    input runs (5.6 and 5.7). It is called with a logger, for what goes wrong with the broker, and
    the errors that this is known by. Another error is told and no more, as by 5.7's promise, for
    whoever asks has other inputs to settle.

    Args:
        call_soon: calls on the settling thread.
        args: the one method of the message.
        on_error: not needed, as the prefetch count needs no restoring here.
    """

    __slots__ = ("_call_soon", "_message", "_name")

    def __init__(
        self, call_soon: Callable[..., Any], args: tuple[Any], on_error: Any = None
    ) -> None:
        (method,) = args
        # Not the method itself, which would be an object more for as long.
        self._message, self._name = method.__self__, method.__name__
        self._call_soon = call_soon

    def __call__(self, *args: Any) -> None:
        try:
            self._call_soon(getattr(self._message, self._name), *args)
        except Exception:
            logger.exception("%s of %r failed", self._name, self._message)

    def then(self, *_: Any, **__: Any) -> None:
        """Called after a reconnection, to restore the prefetch count: here it needs none."""
