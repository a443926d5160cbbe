"""How inputs get into a broker, and which of them are still there.

A wire publishes what the contender's own client would publish, but quickly: one message
is made the ordinary way and copied with a new id and new arguments.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import redis
from celery import Celery
from kombu import Connection, Queue

_CHUNK = 500


class Wire(Protocol):
    """One queue of one broker in one message format."""

    def publish(self, args: Iterable[Sequence[Any]]) -> list[str]:
        """Publish one input per arguments; their ids in the same order."""

    def remaining(self) -> set[str]:
        """Ids of inputs that the broker still has, taken and unacknowledged ones too.

        May empty the queue: asked once, after the node has left.
        """

    def result_key(self, input_id: str) -> str:
        """The key of an input's result in the results' database."""

    def close(self) -> None:
        """Drop the connections."""


class CeleryOverRedis:
    """Celery's messages on kombu's Redis transport (a list, and a hash of unacked ones)."""

    def __init__(self, client: redis.Redis, url: str, *, queue: str, task: str) -> None:
        self._client, self._queue = client, queue
        self._app = Celery("bench", broker=url, set_as_current=False)
        self._app.send_task(task, args=[0], queue=queue)
        self._template: dict[str, Any] = json.loads(_bytes(client.lpop(queue)))

    def publish(self, args: Iterable[Sequence[Any]]) -> list[str]:
        ids: list[str] = []
        pipe = self._client.pipeline(transaction=False)
        for each in args:
            input_id = str(uuid.uuid4())
            ids.append(input_id)
            pipe.lpush(self._queue, self._message(input_id, each))
            if len(pipe) >= _CHUNK:
                pipe.execute()
        pipe.execute()
        return ids

    def _message(self, input_id: str, args: Sequence[Any]) -> str:
        message = self._template
        headers = {
            **message["headers"],
            "id": input_id,
            "root_id": input_id,
            "argsrepr": repr(tuple(args)),
        }
        properties = {
            **message["properties"],
            "correlation_id": input_id,
            "delivery_tag": str(uuid.uuid4()),
        }
        empty = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        body = base64.b64encode(json.dumps([args, {}, empty]).encode()).decode()
        return json.dumps({**message, "body": body, "headers": headers, "properties": properties})

    def remaining(self) -> set[str]:
        queued = self._client.lrange(self._queue, 0, -1)
        unacked = [json.loads(entry)[0] for entry in self._client.hvals("unacked")]
        waiting = [json.loads(entry) for entry in queued]
        return {str(message["headers"]["id"]) for message in waiting + unacked}

    def result_key(self, input_id: str) -> str:
        return f"celery-task-meta-{input_id}"

    def close(self) -> None:
        self._app.close()


class CeleryOverRabbitMQ:
    """Celery's messages on a durable classic queue, persistent as Celery sends them."""

    def __init__(self, url: str, *, queue: str, task: str) -> None:
        self._app = Celery("bench", broker=url, set_as_current=False)
        self._task = task
        self._connection = Connection(url)
        self._queue = Queue(queue, routing_key=queue, durable=True)(
            self._connection.default_channel
        )
        self._queue.queue_declare()
        self._producer = self._connection.Producer(serializer="json", auto_declare=False)

    def publish(self, args: Iterable[Sequence[Any]]) -> list[str]:
        ids: list[str] = []
        for each in args:
            input_id = str(uuid.uuid4())
            ids.append(input_id)
            message = self._app.amqp.as_task_v2(input_id, self._task, args=tuple(each))
            self._producer.publish(
                message.body,
                headers=message.headers,
                routing_key=self._queue.name,
                delivery_mode=2,
                **message.properties,
            )
        return ids

    def remaining(self) -> set[str]:
        left: set[str] = set()
        while (message := self._queue.get(no_ack=True)) is not None:
            left.add(str(message.headers["id"]))
        return left

    def result_key(self, input_id: str) -> str:
        return f"celery-task-meta-{input_id}"

    def close(self) -> None:
        self._queue.delete()
        self._connection.release()
        self._app.close()


class TaskiqOverStreams:
    """taskiq's messages in a Redis stream with taskiq's consumer group."""

    _GROUP = "taskiq"

    def __init__(self, client: redis.Redis, *, queue: str, task: str) -> None:
        from taskiq.message import TaskiqMessage

        self._client, self._queue, self._task = client, queue, task
        self._make = TaskiqMessage

    def publish(self, args: Iterable[Sequence[Any]]) -> list[str]:
        ids: list[str] = []
        pipe = self._client.pipeline(transaction=False)
        for each in args:
            input_id = uuid.uuid4().hex
            ids.append(input_id)
            message = self._make(
                task_id=input_id,
                task_name=self._task,
                labels={},
                labels_types={},
                args=list(each),
                kwargs={},
            )
            pipe.xadd(self._queue, {"data": message.model_dump_json()})
            if len(pipe) >= _CHUNK:
                pipe.execute()
        pipe.execute()
        return ids

    def remaining(self) -> set[str]:
        groups = self._client.xinfo_groups(self._queue)
        if not groups:
            return self._ids(self._client.xrange(self._queue) or [])
        last = _bytes(groups[0]["last-delivered-id"]).decode()
        unread = self._client.xrange(self._queue, min=f"({last}") or []
        pending = self._client.xpending_range(
            self._queue, self._GROUP, min="-", max="+", count=1_000_000
        )
        taken: list[Any] = []
        for entry in pending:
            at = entry["message_id"]
            taken += self._client.xrange(self._queue, min=at, max=at) or []
        return self._ids([*unread, *taken])

    def _ids(self, entries: Iterable[Any]) -> set[str]:
        return {str(json.loads(fields[b"data"])["task_id"]) for _at, fields in entries}

    def result_key(self, input_id: str) -> str:
        return input_id

    def close(self) -> None:
        """Nothing of its own is open."""


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
