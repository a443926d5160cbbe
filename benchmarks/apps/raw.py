"""The limit: a loop in Python that moves the same bytes, pipelined. It promises nothing.

A hundred messages are popped at once, registered as unacknowledged where kombu registers them,
decoded, run one after the other; their results are stored, and they are acknowledged. What a node
does beside that is what it has to spend.
"""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import redis

from benchmarks.apps.inputs import body, settings

_AT_ONCE = 100
_DAY = 86_400


def main() -> None:
    broker = redis.Redis.from_url(settings.broker_url)
    results = redis.Redis.from_url(settings.result_url)
    function = body()
    while True:
        messages: Any = broker.rpop(settings.queue, _AT_ONCE)
        if not messages:
            time.sleep(0.001)
            continue
        envelopes = [json.loads(message) for message in messages]
        tags = [envelope["properties"]["delivery_tag"] for envelope in envelopes]
        register(broker, tags, messages)
        with results.pipeline(transaction=False) as pipe:
            for envelope in envelopes:
                args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
                run(function, args, kwargs)
                key = f"celery-task-meta-{envelope['headers']['id']}"
                value = json.dumps(meta(envelope["headers"]["id"]))
                pipe.set(key, value, ex=_DAY)
                pipe.publish(key, value)
            pipe.execute()
        acknowledge(broker, tags)


def register(broker: redis.Redis, tags: list[str], messages: list[bytes]) -> None:
    """As kombu's QoS.append, for all of them."""
    now = time.time()
    with broker.pipeline(transaction=False) as pipe:
        pipe.zadd("unacked_index", dict.fromkeys(tags, now))
        pipe.hset("unacked", mapping=dict(zip(tags, messages, strict=True)))
        pipe.execute()


def acknowledge(broker: redis.Redis, tags: list[str]) -> None:
    """As kombu's QoS.ack, for all of them."""
    with broker.pipeline(transaction=False) as pipe:
        pipe.zrem("unacked_index", *tags)
        pipe.hdel("unacked", *tags)
        pipe.execute()


def run(function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    coroutine = function(*args, **kwargs)
    if coroutine is not None:
        with suppress(StopIteration):  # a no-op never waits
            coroutine.send(None)


def meta(id: str) -> dict[str, Any]:
    """What Celery stores of a success."""
    done = datetime.now(timezone.utc).isoformat()
    return {
        "status": "SUCCESS",
        "result": None,
        "traceback": None,
        "children": [],
        "date_done": done,
        "task_id": id,
    }


if __name__ == "__main__":
    main()
