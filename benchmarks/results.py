"""Results as the client of a contender would find them, read the same way for all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis

_CHUNK = 1_000


class Results:
    """The results' database of a cell; nothing else is stored in it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def count(self) -> int:
        return int(self._client.dbsize())

    def missing(self, keys: Sequence[str]) -> set[str]:
        """The keys under which there is no successful result."""
        missing: set[str] = set()
        for first in range(0, len(keys), _CHUNK):
            chunk = keys[first : first + _CHUNK]
            for key, value in zip(chunk, self._client.mget(chunk), strict=True):
                if not _succeeded(value):
                    missing.add(key)
        return missing

    @contextmanager
    def arrivals(self) -> Iterator[Arrivals]:
        """Be told of every result that is stored, while the block runs."""
        self._client.config_set("notify-keyspace-events", "K$")
        subscription = self._client.pubsub(  # type: ignore[no-untyped-call]
            ignore_subscribe_messages=True
        )
        try:
            subscription.psubscribe("__keyspace@*__:*")
            yield Arrivals(subscription)
        finally:
            subscription.close()
            self._client.config_set("notify-keyspace-events", "")


class Arrivals:
    """Keys as Redis announces them: the client sleeps meanwhile, and asks for nothing."""

    def __init__(self, subscription: redis.client.PubSub) -> None:
        self._subscription = subscription

    def wait(self, key: str, *, timeout: float) -> bool:
        """True once ``key`` was stored, False when ``timeout`` seconds went by."""
        deadline = time.monotonic() + timeout
        wanted = f"__:{key}".encode()
        while (left := deadline - time.monotonic()) > 0:
            message = self._subscription.get_message(timeout=left)
            if message is not None and message["channel"].endswith(wanted):
                return True
        return False


def _succeeded(value: bytes | str | None) -> bool:
    if value is None:
        return False
    result = json.loads(value)
    return result.get("status") == "SUCCESS" or result.get("is_err") is False
