"""What a test sees of its inputs from outside: their notes, their events, what the broker holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kombu
import redis
from celery.result import AsyncResult

from tests.services.project import Project
from tests.services.waiting import wait_for

#: For the head of a project's source: ``note("started")`` tells :class:`Notes` of the input.
#: A file and no broker, for that may be called on any thread, loop or hub.
NOTING = """
import json, time
from celery_concurrent import current_input_id

def note(what):
    with open(__file__ + ".notes", "a") as notes:
        notes.write(json.dumps([current_input_id(), what, time.time()]) + "\\n")
"""


class Notes:
    """What the inputs of a project noted: ids, words, and the times of day at which they did."""

    def __init__(self, project: Project) -> None:
        self._path = Path(f"{project.tasks.__file__}.notes")

    def all(self) -> list[tuple[str, str, float]]:
        """In the order in which they were made; a line that is still being written is left out."""
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines(keepends=True)
        return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]

    def of(self, id: str) -> list[str]:
        """What this input noted."""
        return [what for noted, what, _ in self.all() if noted == id]

    def times(self, id: str, what: str) -> list[float]:
        return [at for noted, said, at in self.all() if (noted, said) == (id, what)]

    def wait(self, id: str, what: str, timeout: float = 10.0) -> float:
        """When the input first noted this, as soon as it has."""
        return wait_for(
            lambda: self.times(id, what), timeout, what=lambda: f"{what!r} of {id}: {self.of(id)}"
        )[0]


def started(project: Project, ids: list[str]) -> list[int]:
    """The numbers, by ``ids``, of the inputs that have noted their start, in that order."""
    return [ids.index(id) for id, what, _ in Notes(project).all() if what == "started"]


def release(project: Project, *numbers: int) -> None:
    """Touch what inputs of these numbers wait for: the module's file with a number behind it."""
    for number in numbers:
        Path(f"{project.tasks.__file__}.{number}").touch()


class Events:
    """The events of a project's nodes: ``task-*``, with ``-E``, by input, and their states."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, str]] = []
        self._states: list[dict[str, Any]] = []
        self.types: set[str] = set()

    def states(self, name: str) -> list[dict[str, Any]]:
        """The ``concurrency-node`` events of a node, in order."""
        return [event for event in list(self._states) if event["hostname"] == name]

    def wait_for_state(self, name: str, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
        """The node's latest event, as soon as it has these fields."""

        def latest() -> dict[str, Any] | None:
            states = self.states(name)
            if states and all(states[-1][field] == value for field, value in fields.items()):
                return states[-1]
            return None

        found = wait_for(
            latest, timeout, what=lambda: f"{fields} of {name}: {self.states(name)[-3:]}"
        )
        assert found is not None
        return found

    def of(self, id: str) -> list[str]:
        """The types of this input's events, in order."""
        return [type for uuid, type in list(self._seen) if uuid == id]

    def wait(self, id: str, type: str, timeout: float = 10.0) -> None:
        """Return when this event of the input is there."""
        wait_for(
            lambda: type in self.of(id), timeout, what=lambda: f"{type} of {id}: {self.of(id)}"
        )

    def saw(self, event: dict[str, Any]) -> None:
        self.types.add(event["type"])
        if event["type"] == "concurrency-node":
            self._states.append(event)
        if "uuid" in event:
            self._seen.append((event["uuid"], event["type"]))


@contextmanager
def watching(project: Project) -> Iterator[Events]:
    """Hear the events of the project's nodes from here on."""
    events, listening, closing = Events(), threading.Event(), threading.Event()

    def listen() -> None:
        with project.app.connection_for_read() as connection:
            receiver = project.app.events.Receiver(connection, handlers={"*": events.saw})
            # The context's connection is a clone, and the one that has the consumer.
            with receiver.consumer_context(wakeup=False) as (consuming, _, _):
                while not closing.is_set():
                    with suppress(TimeoutError):
                        consuming.drain_events(timeout=0.2)
                    listening.set()  # Redis: the first of these calls has subscribed

    thread = threading.Thread(target=listen, name="events", daemon=True)
    thread.start()
    assert listening.wait(10.0), "no connection for events"
    try:
        yield events
    finally:
        closing.set()
        thread.join(5.0)


def outcome(result: AsyncResult, timeout: float = 10.0) -> Any:
    """What the input returned or raised, as soon as that is stored.

    It is looked up over and over: a subscription, as ``get`` makes it, may tell a second late.
    """
    wait_for(result.ready, timeout, what=lambda: f"the result of {result.id}: {result.state}")
    return result.result


def backlog(project: Project, queue: str) -> int:
    """How many messages wait in the queue; those that a node holds do not."""
    if project.broker.kind == "redis":
        with redis.Redis.from_url(project.broker.url) as client:
            return int(client.llen(queue))  # without priorities there is one list
    with kombu.Connection(project.broker.url) as connection:
        declared = connection.default_channel.queue_declare(queue, passive=True)
        return int(declared.message_count)


def unacked(project: Project) -> int:
    """Redis: how many messages nodes have taken and not acknowledged, of all queues."""
    assert project.broker.kind == "redis"
    with redis.Redis.from_url(project.broker.url) as client:
        return int(client.hlen("unacked"))
