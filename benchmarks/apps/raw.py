"""The limit: a loop in Python over the same bytes, pipelined. It promises nothing.

A hundred messages are popped at once, decoded, run one after the other, and their results stored in
the round trip that pops the next hundred. What a node does beside that is what it has to spend.
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
        with results.pipeline(transaction=False) as pipe:
            for message in messages:
                envelope = json.loads(message)
                args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
                run(function, args, kwargs)
                key = f"celery-task-meta-{envelope['headers']['id']}"
                value = json.dumps(meta(envelope["headers"]["id"]))
                pipe.set(key, value, ex=_DAY)
                pipe.publish(key, value)
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
