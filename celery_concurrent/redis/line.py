"""A connection to Redis that is kept, and on which one thread may send and another read."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import redis

#: Seconds after which a connection that nobody used may have been closed by Redis.
IDLE = 1.0


class Line:
    """Sends one command at a time, on a connection of a client's pool that it keeps.

    A client takes a connection from its pool for each command, looks whether it is still open,
    and keeps statistics: for a short command that takes longer than Redis does.

    It has one user at a time, who reads the answer before the next one sends; it may be used from
    any thread. :meth:`is_open` and :meth:`send` do not wait. What goes wrong in them leaves a
    broken connection to the next :meth:`ask` or :meth:`close`, which may.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._connection: Any = None
        self._is_broken = False
        self._pid = 0
        self._used_at = 0.0

    def is_open(self) -> bool:
        """Whether :meth:`send` has a connection, as far as can be told here."""
        if self._connection is None or self._is_broken or self._pid != os.getpid():
            return False
        # Its credentials have changed; the pool sees to that when it has the connection back
        # (redis-py 5.3 to 8).
        if getattr(self._connection, "_re_auth_token", None) is not None:
            return False
        if time.monotonic() - self._used_at < IDLE:
            return True
        try:
            # There is nothing to read where nothing was asked for, except that it is closed.
            self._is_broken = self._connection.can_read(timeout=0)
        except (redis.RedisError, OSError):
            self._is_broken = True
        return not self._is_broken

    def ask(self, client: redis.Redis, *command: Any) -> Any:
        """Send a command, and wait for its answer.

        Raises:
            redis.RedisError: what Redis answers, or that it does not.
        """
        if not self.is_open():
            self.close()
            self._pool = client.connection_pool
            self._connection = self._pool.get_connection()
            self._is_broken, self._pid = False, os.getpid()
        self.send(*command)
        return self.answer()

    def send(self, *command: Any) -> None:
        """Send a command on the open connection; does not wait where the command is a short one.

        All that was sent before is answered, so a command that fits into the connection's buffer
        goes there at once.

        Raises:
            redis.RedisError: it could not be sent.
        """
        self._is_broken = True  # until it is answered
        self._connection.send_command(*command, check_health=False)

    def answer(self) -> Any:
        """Wait for the answer to what was sent.

        Raises:
            redis.RedisError: what Redis answers, or that it does not.
        """
        try:
            answer = self._connection.read_response()
        except redis.ResponseError:
            self._is_broken = False
            raise
        finally:
            self._used_at = time.monotonic()
        self._is_broken = False
        return answer

    def close(self) -> None:
        """Give the connection back, closed: an answer may be on its way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            # The pool may want to tell it of new credentials, and Redis may be away.
            with suppress(redis.RedisError, OSError):
                self._pool.release(connection)
