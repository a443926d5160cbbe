"""Waiting for results in Redis by subscription: one connection per event loop and backend.

What always holds: a key is read after Redis has confirmed the subscription to it; so a result
that is stored in between is either read or heard. After a connection loss all keys that are
waited for are subscribed to, and read, again.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from weakref import WeakKeyDictionary

from celery import states
from celery.backends.redis import RedisBackend
from celery.utils.log import get_logger
from redis import asyncio as aioredis
from redis import exceptions

logger = get_logger(__name__)

#: Seconds between attempts to connect again.
RETRY_AFTER = 0.5

#: Seconds for which the connections are kept when nobody waits.
LINGER = 1.0

#: Seconds of one wait for a message, below the timeout that the connection has.
LISTEN = 5.0

#: Results in one reply of Redis.
READ_AT_ONCE = 100

_CONNECTIONS = {
    "Connection": aioredis.Connection,
    "SSLConnection": aioredis.SSLConnection,
    "UnixDomainSocketConnection": aioredis.UnixDomainSocketConnection,
}
_subscribers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, Subscriber]] = (
    WeakKeyDictionary()
)


def subscriber_for(backend: Any) -> Subscriber | None:
    """The running loop's subscriber to this backend; None for one that is not plain Redis."""
    backend = getattr(backend, "real", backend)
    if type(backend) is not RedisBackend:
        return None
    parameters = _parameters(backend)
    if parameters is None:
        return None
    mine = _subscribers.setdefault(asyncio.get_running_loop(), {})
    # By the server, not by the object: backends are made per thread.
    key = hash(backend.as_uri(include_password=True))
    if key not in mine:
        mine[key] = Subscriber(backend, parameters)
    return mine[key]


def _parameters(backend: Any) -> dict[str, Any] | None:
    """What the backend connects with, for an asyncio connection."""
    parameters = dict(backend.connparams)
    name = getattr(parameters.pop("connection_class", None), "__name__", "Connection")
    if name not in _CONNECTIONS:
        return None
    parameters["connection_class"] = _CONNECTIONS[name]
    parameters["max_connections"] = None
    return parameters


class Subscriber:
    """Hears of results for one event loop, and reads them.

    One task, the keeper, does all that is sent, in batches; a second one listens.

    Args:
        backend: decodes what is stored.
        parameters: of the connections.
    """

    def __init__(self, backend: Any, parameters: dict[str, Any]) -> None:
        self._backend = backend
        self._parameters = parameters
        self._waiting: dict[bytes, set[asyncio.Future[dict[str, Any]]]] = {}
        self._asked: set[bytes] = set()  # to be subscribed to, or read if they are already
        self._confirmed: set[bytes] = set()  # to be read: Redis tells of them from now on
        self._left: set[bytes] = set()  # nobody waits for them any more
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def outcome(self, task_id: str) -> dict[str, Any]:
        """The decoded result of a task, once it has one."""
        key = self._backend.get_key_for_task(task_id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting.setdefault(key, set()).add(future)
        self._asked.add(key)
        self._changed.set()
        if self._keeper is None:
            self._keeper = loop.create_task(self._keep(), name="celery-concurrent-results")
        try:
            return await future
        finally:
            self._forget(key, future)

    def _forget(self, key: bytes, future: asyncio.Future[dict[str, Any]]) -> None:
        waiters = self._waiting[key]
        waiters.discard(future)
        if not waiters:
            del self._waiting[key]
            self._left.add(key)
            self._changed.set()

    async def _keep(self) -> None:
        """One connection after another, until nobody has waited for a while."""
        connected = True
        try:
            while self._waiting:
                try:
                    await self._serve()
                    connected = True
                except exceptions.AuthenticationError:
                    raise
                except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
                    if connected:
                        logger.warning("lost the connection for results: %r; trying again", error)
                    connected = False
                    await asyncio.sleep(RETRY_AFTER)
        except Exception as error:
            for key in list(self._waiting):
                self._settle(key, error)
        finally:
            self._keeper = None

    async def _serve(self) -> None:
        """Serve who waits, over one connection to listen and one to read."""
        client: Any = aioredis.Redis(connection_pool=aioredis.ConnectionPool(**self._parameters))
        pubsub = client.pubsub()
        listener: asyncio.Task[None] | None = None
        subscribed: set[bytes] = set()
        self._asked.update(self._waiting)
        self._changed.set()
        try:
            while await self._has_work():
                self._changed.clear()
                asked, self._asked = self._asked & self._waiting.keys(), set()
                left, self._left = (self._left - self._waiting.keys()) & subscribed, set()
                if asked - subscribed:
                    await pubsub.subscribe(*(asked - subscribed))
                if left:
                    await pubsub.unsubscribe(*left)
                if listener is None:
                    listener = asyncio.create_task(self._listen(pubsub))
                    listener.add_done_callback(lambda _: self._changed.set())
                elif listener.done():
                    listener.result()
                self._confirmed |= asked & subscribed
                subscribed = (subscribed | asked) - left
                await self._read(client)
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)
            await pubsub.aclose()
            await client.aclose(close_connection_pool=True)

    async def _has_work(self) -> bool:
        """Wait for something to send; False when nobody has waited for a while."""
        if self._waiting or self._changed.is_set():
            await self._changed.wait()
            return True
        # Kept for the next call of a program that calls one task after another.
        changed = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait([changed], timeout=LINGER)
        changed.cancel()
        return bool(self._waiting)

    async def _listen(self, pubsub: Any) -> None:
        while True:
            message = await pubsub.get_message(timeout=LISTEN)
            if message is None:
                continue
            if message["type"] == "subscribe":  # again after a reconnect of the library's own
                self._confirmed.add(message["channel"])
                self._changed.set()
            elif message["type"] == "message":
                self._tell(message["channel"], message["data"])

    async def _read(self, client: Any) -> None:
        keys = list(self._confirmed & self._waiting.keys())
        self._confirmed.clear()
        for first in range(0, len(keys), READ_AT_ONCE):
            some = keys[first : first + READ_AT_ONCE]
            for key, data in zip(some, await client.mget(some), strict=True):
                if data is not None:
                    self._tell(key, data)

    def _tell(self, key: bytes, data: bytes) -> None:
        if key not in self._waiting:
            return
        try:
            meta = cast(dict[str, Any], self._backend.decode_result(data))
        except Exception as error:  # what cannot be decoded is its waiters' to know
            self._settle(key, error)
            return
        if meta["status"] in states.READY_STATES:
            self._settle(key, meta)

    def _settle(self, key: bytes, outcome: dict[str, Any] | Exception) -> None:
        for future in self._waiting[key]:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
