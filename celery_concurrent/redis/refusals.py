"""Replies by which Redis refuses for a while what it does otherwise: as a lost connection.

A failover, a full memory or a disk that fails shall not end a node, as an error does that Redis
would repeat for ever: the consumer connects again, to the master that there is by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

#: At the beginning of a reply, or where a script or redis-py's pipeline passes it on.
_CODE = re.compile(
    r"(?:^|-|caused error: )(?:READONLY|NOREPLICAS|MISCONF|MASTERDOWN|BUSY|OOM|UNBLOCKED)\b"
)
#: Classes that redis-py has for some, less the code in the text (5.3 to 8).
_CLASSES = ("ReadOnlyError", "OutOfMemoryError", "MasterDownError")


class RefusedError(RedisConnectionError):
    """Redis refuses for a while."""


@contextmanager
def refusals_as_lost_connections() -> Iterator[None]:
    """Raise what is refused for now as a connection's error; everything else as it is.

    Also what Celery and kombu ask of Redis: around all that a consumer does.
    """
    try:
        yield
    except ResponseError as error:
        if is_for_now(error):
            raise RefusedError(f"Redis refuses for now: {error!s}") from error
        raise


def is_for_now(error: ResponseError) -> bool:
    """Whether Redis says "not now" rather than "no"."""
    return type(error).__name__ in _CLASSES or _CODE.search(str(error)) is not None
