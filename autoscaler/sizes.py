"""How long queues are, per kind of broker; each class holds one connection of kombu's."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from amqp import spec
from amqp.exceptions import ChannelError, NotFound
from amqp.serialization import dumps
from kombu.transport import virtual
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from celery_concurrent.autoscaler.provider import ProviderError

# Answers with place and length of every list that is not empty. Most are empty: EXISTS, which
# takes many keys in one call, passes over a hundred of them at once.
_SCRIPT = """
local told = {}
for first = 1, #KEYS, 100 do
    local last = math.min(first + 99, #KEYS)
    if redis.call('EXISTS', unpack(KEYS, first, last)) > 0 then
        for place = first, last do
            local length = redis.call('LLEN', KEYS[place])
            if length > 0 then
                told[#told + 1] = place
                told[#told + 1] = length
            end
        end
    end
end
return told
"""


#: Declarations that are sent before their answers are read: neither side's buffers fill up.
_AT_ONCE = 500
#: Seconds for which a queue that cannot be made is left unasked.
_LEAVE = 5.0
#: RabbitMQ's words for a queue that does not exist. One whose node is down, or that was stopped
#: there, is not found either.
_NO_QUEUE = "no queue '"


class RedisSizes:
    """One list per queue and priority step, by kombu's names; all of them in one round trip."""

    each = 0.0

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        channel = connection.default_channel
        self._channel = channel
        self._prefix = channel.global_keyprefix
        self._steps: Sequence[int] = channel.priority_steps
        self._sha: str | None = None
        self._is_script_denied = False
        self._packed_for: tuple[str, ...] = ()
        self._packed: list[bytes] = []

    def read(self, queues: Sequence[str]) -> dict[str, int]:
        if not queues:
            return {}
        if self._is_script_denied:
            return self._by_pipeline(queues)
        try:
            return self._by_script(tuple(queues))
        except NoScriptError:  # the server was restarted, or its scripts flushed
            self._packed_for = ()
            return self._by_script(tuple(queues))
        except (NoPermissionError, ResponseError):
            # No rights to scripts, or keys in several slots of a cluster.
            self._is_script_denied = True
            return self._by_pipeline(queues)

    def close(self) -> None:
        self._connection.release()

    def _by_script(self, queues: tuple[str, ...]) -> dict[str, int]:
        with self._channel.conn_or_acquire() as client:
            pool = client.connection_pool
            wire = _wire(pool)
            try:
                if self._packed_for != queues:
                    self._pack(wire, queues)
                wire.send_packed_command(self._packed, check_health=False)
                told = wire.read_response()
            except BaseException:
                # What it would answer next may be the answer to this.
                wire.disconnect()
                raise
            finally:
                pool.release(wire)
        sizes = dict.fromkeys(queues, 0)
        for place, length in zip(told[::2], told[1::2], strict=True):
            sizes[queues[(place - 1) // len(self._steps)]] += length
        return sizes

    def _pack(self, wire: Any, queues: tuple[str, ...]) -> None:
        """Make the command's bytes, which are the same from one reading to the next."""
        wire.send_command("SCRIPT", "LOAD", _SCRIPT)
        sha = wire.read_response()
        keys = [f"{self._prefix}{key}" for queue in queues for key in self._keys(queue)]
        self._packed = [b"".join(wire.pack_command("EVALSHA", sha, len(keys), *keys))]
        self._packed_for = queues

    def _by_pipeline(self, queues: Sequence[str]) -> dict[str, int]:
        with (
            self._channel.conn_or_acquire() as client,
            client.pipeline(transaction=False) as pipe,  # its client adds the prefix
        ):
            for queue in queues:
                for key in self._keys(queue):
                    pipe.llen(key)
            lengths = iter(pipe.execute())
        return {queue: sum(next(lengths) for _ in self._steps) for queue in queues}

    def _keys(self, queue: str) -> list[str]:
        # kombu 5.6 and 5.7: what publishing and consuming name their lists by.
        return [self._channel._q_for_pri(queue, step) for step in self._steps]


def _wire(pool: Any) -> Any:
    """A bare connection: a client would pack the command anew for each reading."""
    try:
        return pool.get_connection()
    except TypeError:  # redis-py 5.0 to 5.2 want the name of a command
        return pool.get_connection("EVALSHA")


class AmqpSizes:
    """RabbitMQ: passive declarations tell lengths, all sent at once and answered in their order.

    For a queue that does not exist RabbitMQ closes the channel, which py-amqp opens again (5.3),
    answers nothing of what came after, and writes an error into its log. So the queue is made
    as a node would make it, and where that fails it is left in peace for a while. One that exists
    and cannot be reached may be full: its size is unknown.

    Args:
        timeout: seconds for an answer of the broker.
        make: declares a queue on a channel, as nodes and publishers do; raises what it likes.
        clock: monotonic seconds.
    """

    # A length costs RabbitMQ 20 to 40 microseconds: a tenth of a core at the most.
    each = 0.0004

    def __init__(
        self,
        connection: Any,
        timeout: float,
        make: Callable[[Any, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._make = make
        self._clock = clock
        self._frames: dict[str, bytes] = {}
        # Until when a queue is left in peace, and what it counts meanwhile.
        self._left: dict[str, tuple[float, int | None]] = {}
        # py-amqp waits for ever for an answer, unless its socket does not.
        self._transport = connection.connection.transport
        self._transport.sock.settimeout(timeout)

    def read(self, queues: Sequence[str]) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {}
        now, asking = self._clock(), []
        for queue in queues:
            until, sizes[queue] = self._left.get(queue, (now, 0))
            if now >= until:
                asking.append(queue)
        while asking:
            asked = asking[:_AT_ONCE]
            told, missing = self._ask(asked)
            sizes.update(zip(asked, told, strict=False))
            done = len(told)
            if missing is not None:
                sizes[asked[done]] = self._add(asked[done], missing)
                done += 1
            asking = asking[done:]
        return sizes

    def close(self) -> None:
        with contextlib.suppress(OSError):
            # At once: an orderly goodbye would wait for the answer of a broker that gives none.
            self._transport.close()
        self._connection.collect()

    def _ask(self, queues: Sequence[str]) -> tuple[list[int], NotFound | None]:
        """The sizes of all, or of those before the first that is not found, and what was said."""
        # By hand: py-amqp would wait for each answer before it sends the next.
        self._transport.write(b"".join([self._frame(queue) for queue in queues]))
        told: list[int] = []
        try:
            while len(told) < len(queues):
                _, messages, _ = self._channel.wait(spec.Queue.DeclareOk, returns_tuple=True)
                told.append(messages)
        except NotFound as error:
            return told, error
        return told, None

    def _add(self, queue: str, missing: NotFound) -> int | None:
        """Make a queue that is not found; returns what it counts."""
        size = 0 if _NO_QUEUE in str(missing.reply_text) else None
        try:
            self._make(self._channel, queue)
        except (ChannelError, KeyError):
            # No rights, app.conf.task_create_missing_queues=False, or out of reach for this, too.
            self._left[queue] = (self._clock() + _LEAVE, size)
        return size

    def _frame(self, queue: str) -> bytes:
        """A passive declaration, which is the same from one reading to the next."""
        frame = self._frames.get(queue)
        if frame is None:
            # Of queue.declare: a reserved short, the name, five flags, a table of arguments.
            words: tuple[Any, ...] = (0, queue, True, False, False, False, False, {})
            method = struct.pack(">HH", *spec.Queue.Declare) + dumps("BsbbbbbF", words)
            header = struct.pack(">BHI", 1, self._channel.channel_id, len(method))
            frame = self._frames[queue] = header + method + b"\xce"
        return frame


class VirtualSizes:
    """Any other transport of kombu's that can tell; the memory transport among them."""

    each = 0.0

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        if type(connection.default_channel)._size is virtual.Channel._size:
            raise ProviderError(
                f"the transport {connection.transport.driver_type!r} does not tell how long its "
                "queues are: fleets cannot follow it. Use Redis or RabbitMQ."
            )

    def read(self, queues: Sequence[str]) -> dict[str, int]:
        channel = self._connection.default_channel
        return {queue: int(channel._size(queue)) for queue in queues}

    def close(self) -> None:
        self._connection.release()
