"""Reading and writing results in Redis, many in one command."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from celery.utils.log import get_logger
from redis.exceptions import (
    ClusterCrossSlotError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from celery_concurrent.redis.line import Line

logger = get_logger(__name__)

#: Results in one script call at the most, and bytes of them, which bound how long it holds up
#: other clients.
MOST_RESULTS = 100
MOST_BYTES = 1_000_000

#: Bytes of a result that goes out without waiting, at the most: any connection buffers that much.
SHORT = 4_000

#: Stores results, and tells who waits for them, as ``RedisBackend._set`` does (Celery 5.6, 5.7).
#: KEYS: the results' keys. ARGV: seconds that one is kept, 0 for good, and its value, by turns.
_STORE = """
for place, key in ipairs(KEYS) do
    local seconds, value = ARGV[2 * place - 1], ARGV[2 * place]
    if seconds == '0' then redis.call('SET', key, value)
    else redis.call('SETEX', key, seconds, value) end
    redis.call('PUBLISH', key, value)
end
"""
_STORE_SHA = hashlib.sha1(_STORE.encode(), usedforsecurity=False).hexdigest()


_REFUSALS = (NoPermissionError, ClusterCrossSlotError)


class Write(NamedTuple):
    """One result: its key, its value, and the seconds that it is kept, 0 for good."""

    key: str | bytes
    value: str | bytes
    seconds: int


class Storing:
    """Reads and writes results, by commands for many keys where Redis takes these from us.

    It does not where scripts are forbidden to the user, and where the keys belong to different
    nodes of a cluster behind one address. A script is told a value once, for its key and for those
    who wait, and answers once.
    """

    def __init__(self) -> None:
        self._together = True
        self._line = Line()

    def read(self, client: Any, keys: Sequence[Any]) -> dict[Any, Any]:
        """What each key holds, None for nothing.

        Raises:
            redis.exceptions.RedisError: it cannot be told.
        """
        if not keys:
            return {}
        if self._together:
            try:
                return dict(zip(keys, self._line.ask(client, "MGET", *keys), strict=True))
            except ResponseError as error:
                self._give_up(error)
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            return dict(zip(keys, pipe.execute(), strict=True))

    def write(self, client: Any, writes: Sequence[Write]) -> None:
        """Have all of them stored when this returns.

        Raises:
            redis.exceptions.RedisError: some may be.
        """
        if self._together:
            try:
                for some in _portions(writes):
                    self._call(client, some)
            except ResponseError as error:
                self._give_up(error)
            else:
                return
        self._pipeline(client, writes)

    def send(self, write: Write) -> bool:
        """Send one result without waiting; True when it was, and :meth:`see_stored` is to follow.

        False where it could not be done without waiting: then nothing was sent that Redis would do.
        """
        if not self._together or len(write.value) > SHORT or not self._line.is_open():
            return False
        try:
            self._line.send("EVALSHA", _STORE_SHA, 1, write.key, write.seconds, write.value)
        except RedisError:
            return False
        return True

    def see_stored(self) -> None:
        """Wait until the result is stored that was sent.

        Raises:
            redis.exceptions.RedisError: it may not be.
        """
        self._line.answer()

    def _give_up(self, error: ResponseError) -> None:
        """Go on with one command for each key, if that is what the error asks for."""
        if not isinstance(error, _REFUSALS) and "unknown command" not in str(error).lower():
            raise error
        logger.info("Redis runs no scripts for this node's results: %s", error)
        self._together = False
        self.close()

    def close(self) -> None:
        """Give the connection back, for others to use; another is taken with the next command."""
        self._line.close()

    def _call(self, client: Any, writes: Sequence[Write]) -> None:
        keys = [write.key for write in writes]
        values = [word for write in writes for word in (write.seconds, write.value)]
        try:
            self._line.ask(client, "EVALSHA", _STORE_SHA, len(keys), *keys, *values)
        except NoScriptError:
            self._line.ask(client, "EVAL", _STORE, len(keys), *keys, *values)

    @staticmethod
    def _pipeline(client: Any, writes: Sequence[Write]) -> None:
        # As plain commands: redis-py warns at each call of ``setex``.
        with client.pipeline(transaction=False) as pipe:
            for key, value, seconds in writes:
                if seconds:
                    pipe.execute_command("SETEX", key, seconds, value)
                else:
                    pipe.execute_command("SET", key, value)
                pipe.execute_command("PUBLISH", key, value)
            pipe.execute()


def _portions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    first = size = 0
    for place, write in enumerate(writes):
        is_full = place - first == MOST_RESULTS or size + len(write.value) > MOST_BYTES
        if is_full and place > first:
            yield writes[first:place]
            first, size = place, 0
        size += len(write.value)
    if first < len(writes):
        yield writes[first:]
