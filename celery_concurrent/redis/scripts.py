"""The scripts that take inputs from Redis, settle them, and find again what a lost answer held.

What is taken is the node's while its *lease* lives, see :mod:`.leases`. Each channel keeps a
*record* in Redis: what its last take has taken, by number. When an answer is lost with its
connection, the record tells what was in it. Closing the record comes first: a take that is
still under way to Redis then finds it closed, and takes nothing.
"""

from __future__ import annotations

import hashlib

#: Redis' own clock: nodes' clocks differ.
NOW = """
local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
"""

#: Begins a script whose first write Redis would refuse while its memory is full (``noeviction``):
#: what follows a write that it allows, it allows as well. Or nodes would lose their leases, and
#: nobody would empty the queues that fill it.
FIRST = """
redis.call('ZREM', KEYS[1], '')
"""

#: Whether a tag is still registered by who noted ``value`` in its hash of holdings: somebody
#: else who takes it, or puts it back, changes or removes its score.
HOLDS = """
local function holds(index, tag, value)
    local score = value and redis.call('ZSCORE', index, tag)
    return score and tonumber(score) == tonumber(string.match(value, '^%S+ (%S+) '))
end
"""

#: Whether a lease lives: its node may count on what it has taken.
IS_LIVE = """
local function is_live(leases, lapsed, id, time)
    local lapses_at = redis.call('ZSCORE', leases, id)
    return lapses_at and tonumber(lapses_at) > time and not redis.call('ZSCORE', lapsed, id)
end
"""

#: Removes what is acknowledged, as kombu's QoS.ack does; what the node no longer holds stays.
_ACKNOWLEDGE = """
local function acknowledge(lives, first)
    local acked = {unpack(ARGV, first)}
    if #acked == 0 then return end
    local held, tags = redis.call('HMGET', KEYS[3], unpack(acked)), {}
    for place, tag in ipairs(acked) do
        if held[place] and (lives or holds(KEYS[2], tag, held[place])) then
            tags[#tags + 1] = tag
        end
    end
    if #tags == 0 then return end
    redis.call('ZREM', KEYS[2], unpack(tags))
    redis.call('HDEL', KEYS[1], unpack(tags))
    redis.call('HDEL', KEYS[3], unpack(tags))
end
"""

#: KEYS: unacked, unacked_index, the node's holdings, leases, lapsed.
#: ARGV: the lease, then some hundred tags at the most.
ACKNOWLEDGE = f"""{NOW}{HOLDS}{IS_LIVE}{_ACKNOWLEDGE}
acknowledge(is_live(KEYS[4], KEYS[5], ARGV[1], now()), 2)
"""

#: A message's properties, nil where it is none. They stand at its end where kombu has written it:
#: then the body, which may be long, is not decoded. An object that ends one brace before the
#: message does is a field of the message itself; everything else is decoded as a whole.
_PROPERTIES = """
local field = '"properties": {'
local function decoded(text)
    local readable, value = pcall(cjson.decode, text)
    return readable and type(value) == 'table' and value or nil
end
local function properties_of(message)
    local start
    local at = string.find(message, field, math.max(1, #message - 2000), true)
    while at do
        start = at + #field - 1
        at = string.find(message, field, start, true)
    end
    if start and string.sub(message, -1) == '}' then
        local _, last = string.find(message, '^%b{}', start)
        local properties = last == #message - 1 and decoded(string.sub(message, start, last))
        if properties then return properties end
    end
    local envelope = decoded(message)
    return envelope and envelope.properties
end
"""

#: Removes what is acknowledged; then takes up to ARGV[1] messages, registers each as kombu's
#: QoS.append does, and notes it among the node's holdings. When it finds fewer, it reads the
#: queues' keys, so that Redis tracks them for the caller: the next change of any of them is told.
#: KEYS: those of ACKNOWLEDGE, the record, then the queues' keys, priority by priority.
#: ARGV: how many, the lease, queues per priority, 1 for one from each queue in turn,
#: the take's number, the seconds that the record is kept, then the acknowledged tags.
#: Returns pairs: the place of the key (from 0), the message. Nil when the lease does not live:
#: then nothing is taken.
TAKE = f"""{NOW}{HOLDS}{IS_LIVE}{_ACKNOWLEDGE}{_PROPERTIES}
local time = now()
local lives = is_live(KEYS[4], KEYS[5], ARGV[2], time)
acknowledge(lives, 7)
if not lives then return false end
local most, width, in_turn = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4] == '1'
local taken, tags, scores, entries, held = {{}}, {{}}, {{}}, {{}}, {{}}
local score = string.format('%.6f', time)
local function register(tag, message, info, queue)
    local place = #tags * 2
    scores[place + 1], scores[place + 2] = score, tag
    entries[place + 1], entries[place + 2] = tag, '[' .. message .. ', '
        .. cjson.encode(info.exchange or '') .. ', ' .. cjson.encode(info.routing_key or '') .. ']'
    held[place + 1], held[place + 2] = tag, score .. '-' .. #tags .. ' ' .. score .. ' ' .. queue
    tags[#tags + 1] = tag
end
local function take(key)
    local message = redis.call('RPOP', KEYS[key])
    if not message then return false end
    local properties = properties_of(message)
    if type(properties) == 'table' and type(properties.delivery_info) == 'table'
            and type(properties.delivery_tag) == 'string' then
        register(properties.delivery_tag, message, properties.delivery_info, KEYS[key])
    end
    taken[#taken + 1] = key - 7
    taken[#taken + 1] = message
    return true
end
local function take_all()
    for first = 7, #KEYS, width do
        local live = {{}}
        for key = first, first + width - 1 do live[#live + 1] = key end
        while #live > 0 do
            local left = {{}}
            for _, key in ipairs(live) do
                local more = true
                repeat
                    if #taken >= most * 2 then return end
                    more = take(key)
                until in_turn or not more
                if more then left[#left + 1] = key end
            end
            live = left
        end
    end
end
if string.sub(redis.call('GET', KEYS[6]) or '', 1, 6) ~= 'closed' then take_all() end
if #tags > 0 then
    redis.call('ZADD', KEYS[2], unpack(scores))
    redis.call('HSET', KEYS[1], unpack(entries))
    redis.call('HSET', KEYS[3], unpack(held))
    redis.call('SET', KEYS[6], cjson.encode({{tonumber(ARGV[5]), tags}}), 'EX', ARGV[6])
end
if #taken < most * 2 then
    for first = 7, #KEYS, 1000 do  -- Lua unpacks some thousands
        redis.call('EXISTS', unpack(KEYS, first, math.min(first + 999, #KEYS)))
    end
end
return taken
"""

#: How Redis calls it.
TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()

#: Closes the record KEYS[1] for ARGV[1] seconds, and returns what it held: the take's number
#: and the tags, or nothing. Asked again, it answers the same.
CLOSE_RECORD = """
local record = redis.call('GET', KEYS[1]) or ''
if string.sub(record, 1, 6) == 'closed' then return string.sub(record, 7) end
redis.call('DEL', KEYS[1])  -- as in FIRST
redis.call('SET', KEYS[1], 'closed' .. record, 'EX', ARGV[1])
return record
"""
