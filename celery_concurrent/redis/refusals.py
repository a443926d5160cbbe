"""Replies by which Redis refuses for a while what it does otherwise: as a lost connection.

A failover, a full memory or a disk that fails shall not end a node, as an error does that Redis
would repeat for ever: the consumer connects again, to the master that there is by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

#: In the text of a reply, also of one that a script passes on.
_CODES = ("READONLY", "NOREPLICAS", "MISCONF", "MASTERDOWN", "BUSY", "OOM")
#: Classes that redis-py has for some, less the code in the text (5.3 to 8).
_CLASSES = ("ReadOnlyError", "OutOfMemoryError", "MasterDownError")


@contextmanager
def refusals_as_lost_connections() -> Iterator[None]:
    """Raise what is refused for now as a connection's error; everything else as it is.

    Also what Celery and kombu ask of Redis: around all that a consumer does.
    """
    try:
        yield
    except ResponseError as error:
        if is_for_now(error):
            raise RedisConnectionError(f"Redis refuses for now: {error}") from error
        raise


def is_for_now(error: ResponseError) -> bool:
    """Whether Redis says "not now" rather than "no"."""
    text = str(error)
    return type(error).__name__ in _CLASSES or any(code in text for code in _CODES)
