"""What Redis keeps of leases, and the steps that change it; each step is one script.

Keys, beside kombu's ``unacked`` and ``unacked_index`` and under the same prefix:

- ``unacked.leases``: by lease, when it lapses (of a lapsed one: when to look at it again);
- ``unacked.lapsed``: by lease, when it was found lapsed;
- ``unacked.held.LEASE``: by tag, when the input was taken (the time, and its place in the take),
  its score in ``unacked_index``, and the key of the queue that it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from celery_concurrent.redis.scripts import ACKNOWLEDGE, FIRST, HOLDS, NOW

logger = get_logger(__name__)

#: Tags in one step at the most: bounds how long a script holds up other clients.
LARGEST_STEP = 500
#: Messages that are put back in one step, for these travel to the caller and back.
LARGEST_RETURN = 100
#: Seconds for which it is remembered that a lease has lapsed: how late its node may come back.
REMEMBERED = 86_400.0
#: Seconds after which another node goes on with what one began to put back.
CLAIM = 5.0

#: What kombu registers: [message, exchange, routing key].
_WORD = rb'(?:"(?:[^"\\]|\\.)*"|null)'
_ENTRY = re.compile(rb"\[(.*), " + _WORD + rb", " + _WORD + rb"\]", re.DOTALL)

#: No change, on every key and with every kind of write: Redis says whether it lets us.
#: KEYS: unacked, unacked_index, holdings, leases, lapsed, a record.
_PROBE = """
redis.call('ZREM', KEYS[2], '')
redis.call('HDEL', KEYS[1], '')
redis.call('HDEL', KEYS[3], '')
redis.call('ZREM', KEYS[4], '')
redis.call('ZREM', KEYS[5], '')
redis.call('DEL', KEYS[6])
return redis.call('TIME')
"""

#: Renews a lease, unless it was found lapsed (lost). One that has run out and that nobody has
#: found yet is renewed only when ARGV[3] says that its holdings were looked through.
#: KEYS: leases, lapsed. ARGV: the lease, seconds, 1 when looked through.
#: Returns how it stood, and how many leases have run out.
_RENEW = f"""{NOW}{FIRST}
local time = now()
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {{'lost', 0}} end
local lapses_at = redis.call('ZSCORE', KEYS[1], ARGV[1])
local state = 'live'
if not lapses_at then state = 'new' elseif tonumber(lapses_at) <= time then state = 'late' end
if state == 'late' and ARGV[3] ~= '1' then return {{state, 0}} end
redis.call('ZADD', KEYS[1], time + tonumber(ARGV[2]), ARGV[1])
return {{state, redis.call('ZCOUNT', KEYS[1], '-inf', time)}}
"""

#: Looks through some holdings of a lease that has run out: has somebody taken one of them?
#: Then the lease is lost as a whole.
#: KEYS: unacked_index, holdings, leases, lapsed. ARGV: the lease, a cursor, how many.
#: Returns the next cursor, nil when the lease is lost.
_LOOK_THROUGH = f"""{NOW}{HOLDS}{FIRST}
local found = redis.call('HSCAN', KEYS[2], ARGV[2], 'COUNT', ARGV[3])
for place = 1, #found[2], 2 do
    if not holds(KEYS[1], found[2][place], found[2][place + 1]) then
        local time = now()
        redis.call('ZADD', KEYS[3], time, ARGV[1])
        redis.call('ZADD', KEYS[4], time, ARGV[1])
        return false
    end
end
return found[1]
"""

#: Gives what is held a new score, from which the visibility timeout counts.
#: KEYS: unacked_index, holdings. ARGV: tags.
_REFRESH = f"""{NOW}{HOLDS}{FIRST}
local score = string.format('%.6f', now())
for place, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV))) do
    local tag = ARGV[place]
    if holds(KEYS[1], tag, value) then
        local taken, queue = string.match(value, '^(%S+) %S+ (.*)$')
        redis.call('ZADD', KEYS[1], score, tag)
        redis.call('HSET', KEYS[2], tag, taken .. ' ' .. score .. ' ' .. queue)
    end
end
"""

#: Finds a lease that has run out and holds something, and claims it for ARGV[1] seconds. From
#: now on it is lost to its node.
#: KEYS: leases, lapsed. ARGV: seconds, those that it is remembered, the holdings' prefix.
_FIND_LAPSED = f"""{NOW}
local time = now()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time - tonumber(ARGV[2]))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, 100)) do
    redis.call('ZADD', KEYS[2], 'NX', time, id)
    if redis.call('EXISTS', ARGV[3] .. id) == 1 then
        redis.call('ZADD', KEYS[1], time + tonumber(ARGV[1]), id)
        return id
    end
    redis.call('ZREM', KEYS[1], id)
end
return false
"""

#: Puts messages back that are still held so; the others are left to those who have them.
#: KEYS: unacked, unacked_index, holdings. ARGV: RPUSH (taken next) or LPUSH, then tag and
#: message in turn. Returns how many it were.
_PUT_BACK = f"""{HOLDS}
local count = 0
for place = 2, #ARGV, 2 do
    local tag, message = ARGV[place], ARGV[place + 1]
    local value = redis.call('HGET', KEYS[3], tag)
    if value then
        if holds(KEYS[2], tag, value) and redis.call('HDEL', KEYS[1], tag) == 1 then
            redis.call('ZREM', KEYS[2], tag)
            redis.call(ARGV[1], string.match(value, '^%S+ %S+ (.*)$'), message)
            count = count + 1
        end
        redis.call('HDEL', KEYS[3], tag)
    end
end
return count
"""

#: Ends a lease; what it still holds may be put back at once.
#: KEYS: leases, holdings. ARGV: the lease.
_LEAVE = f"""{NOW}{FIRST}
if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('ZADD', KEYS[1], 'XX', now(), ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
"""


class Holdings:
    """The steps, on a kombu channel's connections.

    Args:
        channel: of kombu's Redis transport; only one thread may use it.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.unacked = f"{channel.global_keyprefix}{channel.unacked_key}"
        self.index = f"{channel.global_keyprefix}{channel.unacked_index_key}"
        self.leases = f"{self.unacked}.leases"
        self.lapsed = f"{self.unacked}.lapsed"

    def held(self, lease: str) -> str:
        """The key of what a lease holds."""
        return f"{self.unacked}.held.{lease}"

    def keys(self, lease: str) -> tuple[str, ...]:
        """The keys of the script that acknowledges, which others take up."""
        return (self.unacked, self.index, self.held(lease), self.leases, self.lapsed)

    def probe(self, lease: str) -> None:
        """Raise what Redis says when it does not let this user keep a lease."""
        self._run(_PROBE, (*self.keys(lease), f"{self.unacked}.take.{lease}"))

    def entry(self, tag: str) -> bytes | None:
        """What is registered under a tag, by whomever: [message, exchange, routing key]."""
        found: bytes | None = self._call("HGET", self.unacked, tag)
        return found

    def acknowledge(self, lease: str, tags: Sequence[str]) -> None:
        """Remove what is settled."""
        for start in range(0, len(tags), LARGEST_STEP):
            self._run(ACKNOWLEDGE, self.keys(lease), lease, *tags[start : start + LARGEST_STEP])

    def renew(self, lease: str, seconds: float, *, looked_through: bool = False) -> tuple[str, int]:
        """Let a lease live for so long from now; how it stood, and how many have run out."""
        state, due = self._run(
            _RENEW, (self.leases, self.lapsed), lease, seconds, int(looked_through)
        )
        return bytes_to_str(state), int(due)

    def look_through(self, lease: str) -> bool:
        """Whether a lease that has run out still holds all that it held; if not, it is lost."""
        keys = (self.index, self.held(lease), self.leases, self.lapsed)
        cursor: Any = "0"
        while True:
            cursor = self._run(_LOOK_THROUGH, keys, lease, cursor, LARGEST_STEP)
            if cursor is None:
                return False
            if int(cursor) == 0:
                return True

    def refresh(self, lease: str, tags: Sequence[str]) -> None:
        """Count the visibility timeout of what is held from now."""
        for start in range(0, len(tags), LARGEST_STEP):
            keys = (self.index, self.held(lease))
            self._run(_REFRESH, keys, *tags[start : start + LARGEST_STEP])

    def leave(self, lease: str) -> None:
        """End a lease."""
        self._run(_LEAVE, (self.leases, self.held(lease)), lease)

    def put_back(
        self, lease: str, tags: Sequence[str], *, at_head: bool = True, may_have_run: bool = True
    ) -> int:
        """Put messages back into the queues they were taken from, where they are still held.

        Args:
            lease: which holds them.
            tags: in the order in which they were taken.
            at_head: whether they are taken next, in this order; else they are taken last.
            may_have_run: whether they are to be marked as redelivered.

        Returns how many it were.
        """
        push, count = ("RPUSH" if at_head else "LPUSH"), 0
        ordered = list(reversed(tags)) if at_head else list(tags)
        for start in range(0, len(ordered), LARGEST_RETURN):
            some = ordered[start : start + LARGEST_RETURN]
            entries = self._call("HMGET", self.unacked, *some)
            pairs = [
                word
                for tag, entry in zip(some, entries, strict=True)
                for word in (tag, (_redelivered if may_have_run else _as_it_is)(entry))
            ]
            count += self._run(_PUT_BACK, self.keys(lease)[:3], push, *pairs)
        return count

    def put_back_lapsed(self) -> Iterator[int]:
        """Put back what leases held that have run out; tells how many, step by step."""
        prefix = self.held("")
        while (
            found := self._run(_FIND_LAPSED, (self.leases, self.lapsed), CLAIM, REMEMBERED, prefix)
        ) is not None:
            lease = bytes_to_str(found)
            held = self._call("HGETALL", self.held(lease))
            tags = [bytes_to_str(tag) for tag in sorted(held, key=lambda tag: _taken(held[tag]))]
            total = 0
            while tags:  # the youngest first: the oldest is to be at the head
                some, tags = tags[-LARGEST_RETURN:], tags[:-LARGEST_RETURN]
                count = self.put_back(lease, some)
                total += count
                yield count
            logger.warning("put back %d inputs of %s, whose lease has lapsed", total, lease)

    def _run(self, script: str, keys: Sequence[str], *args: Any) -> Any:
        return self._call("EVAL", script, len(keys), *keys, *args)

    def _call(self, *command: Any) -> Any:
        with self._channel.conn_or_acquire() as client:
            # Not the client's own: where there is a prefix it would add it to some of the keys.
            execute: Any = redis.Redis.execute_command
            return execute(client, *command)


def _taken(value: bytes) -> tuple[float, int]:
    """When a holding was taken, and the how manieth of its take it was."""
    at, _, place = value.partition(b" ")[0].partition(b"-")
    return float(at), int(place)


def _redelivered(entry: bytes | None) -> str | bytes:
    """A registered message, marked as kombu 5.7 marks what it restores; '' where there is none.

    One that cannot be read here goes back as it is: it may be another program's, and others wait
    to be put back beside it.
    """
    if entry is None:
        return ""
    try:
        # Not by kombu's: types that are registered in other programs stay as they are written.
        message, _, _ = json.loads(entry)
        if isinstance(message.get("headers"), dict):
            message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
        return json.dumps(message)
    except Exception:
        return _as_it_is(entry)


def _as_it_is(entry: bytes | None) -> str | bytes:
    if entry is None:
        return ""
    cut = _ENTRY.fullmatch(entry)
    return entry if cut is None else cut[1]
