"""A load of inputs whose every run is on record: which were lost, which ran twice.

The tasks write to a file beside their module: a line costs them no round trip, and is there
whatever happens to the node or to a broker after it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import kombu
import redis

from tests.services.project import Project
from tests.services.waiting import wait_for

#: How often a test of chaos kills or restarts something; ``make chaos`` sets it higher.
ROUNDS = int(os.environ.get("CELERY_CONCURRENT_CHAOS_ROUNDS", "4"))

#: Have Redis give back what a killed node had taken after some seconds, not after an hour.
SOON_VISIBLE = {
    "visibility_timeout": 5,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}

_SOURCE = """
import asyncio
import os
import time
from pathlib import Path

from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.update(task_default_queue="plain", **CONF)
if "RESERVE" in os.environ:
    app.conf.concurrent_reserve = int(os.environ["RESERVE"])
if "BROKER" in os.environ:
    os.environ["CELERY_BROKER_URL"] = os.environ["BROKER"]
record = os.open(Path(__file__).with_suffix(".runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what, request):
    again = int(bool(request.delivery_info.get("redelivered")))
    line = f"{what} {request.id} {os.getpid()} {again} {time.time()}\\n"
    os.write(record, line.encode())


@app.task(bind=True)
def plain(self):
    note("start", self.request)
    note("end", self.request)


@app.task(bind=True, queue="noops")
@concurrent(max_inputs=10)
def noop(self):
    note("start", self.request)
    note("end", self.request)


@app.task(bind=True, queue="anoops")
@concurrent(max_inputs=50)
async def anoop(self):
    note("start", self.request)
    note("end", self.request)


@app.task(bind=True, queue="naps")
@concurrent(max_inputs=20)
def nap(self, seconds):
    note("start", self.request)
    time.sleep(seconds)
    note("end", self.request)


@app.task(bind=True, queue="mixed")
@concurrent(max_inputs=1)
def one(self, seconds):
    note("start", self.request)
    time.sleep(seconds)
    note("end", self.request)


@app.task(bind=True, queue="mixed")
@concurrent(max_inputs=9)
def many(self, seconds):
    note("start", self.request)
    time.sleep(seconds)
    note("end", self.request)


@app.task(bind=True, queue="anaps")
@concurrent(max_inputs=100)
async def anap(self, seconds):
    note("start", self.request)
    await asyncio.sleep(seconds)
    note("end", self.request)
"""

QUEUES = ("noops", "anoops", "naps", "anaps", "mixed")
#: The options of a node that consumes all of them, at full speed.
NODE = ("-Q", ",".join(QUEUES))
#: The environment of one that holds inputs beside those that run.
RESERVING = {"RESERVE": "3"}
#: The slots of such a node.
SLOTS = 190


def source(**conf: Any) -> str:
    """The app's source: ``noop``, ``anoop``, ``nap(seconds)`` and ``anap(seconds)``.

    ``one(seconds)`` and ``many(seconds)`` share a queue, so that a node fetches more inputs of
    ``one`` than it has slots for. ``plain`` is a task without ``@concurrent``.
    """
    return _SOURCE.replace("**CONF", f"**{conf!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of an input's function."""

    id: str
    pid: int
    redelivered: bool
    at: float


class Load:
    """What was published to a project, and what became of it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.ids: list[str] = []
        self._results = redis.Redis.from_url(project.broker.backend)
        self._succeeded: set[str] = set()
        #: Held while inputs are published.
        self.lock = threading.Lock()
        self._reading = threading.Lock()
        self._runs: dict[str, dict[str, list[Run]]] = {"start": {}, "end": {}}
        self._record = project.folder / f"{project.name}.runs"
        self._read_to = 0

    # -- publishing

    def publish(self, name: str, count: int = 1, *args: Any, **options: Any) -> list[str]:
        """Publish ``count`` inputs of the task ``name``, and return their ids."""
        task = getattr(self.project.tasks, name)
        with self.lock:
            ids = [task.apply_async(args, **options).id for _ in range(count)]
            self.ids.extend(ids)
        return ids

    @contextmanager
    def publishing(self, *, ahead: int = 600) -> Iterator[None]:
        """Publish inputs of all kinds without end, ``ahead`` more than have started."""
        stopped = threading.Event()
        errors: list[BaseException] = []

        def publish() -> None:
            try:
                while not stopped.is_set():
                    if len(self.ids) - len(self.runs()) > ahead:
                        stopped.wait(0.05)
                        continue
                    self.publish("noop", 40)
                    self.publish("anoop", 40)
                    self.publish("nap", 10, 0.02)
                    self.publish("anap", 40, 0.05)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        assert not errors, errors

    # -- what became of it

    def runs(self, what: str = "start") -> dict[str, list[Run]]:
        """The runs of every input that has started (or, ``what="end"``, ended), in order."""
        with self._reading:
            self._read_on()
            return {id: list(runs) for id, runs in self._runs[what].items()}

    def repeated(self) -> dict[str, list[Run]]:
        """The inputs that started more than once."""
        return {id: runs for id, runs in self.runs().items() if len(runs) > 1}

    def without_result(self, ids: Iterable[str] | None = None) -> set[str]:
        """The inputs of which no success is stored."""
        asked = [id for id in (self.ids if ids is None else ids) if id not in self._succeeded]
        for start in range(0, len(asked), 1000):
            some = asked[start : start + 1000]
            stored: Any = self._results.mget([f"celery-task-meta-{id}" for id in some])
            for id, value in zip(some, stored, strict=True):
                if value is not None and json.loads(value)["status"] == "SUCCESS":
                    self._succeeded.add(id)
        return set(asked) - self._succeeded

    def wait_until_done(self, timeout: float = 60.0, ids: Sequence[str] | None = None) -> None:
        """Return when every input has a result."""
        awaited = set(self.ids if ids is None else ids)
        wait_for(
            # The file first, which is cheap to look at.
            lambda: awaited <= set(self.runs("end")) and not self.without_result(awaited),
            timeout,
            what=lambda: f"a result of {sorted(self.without_result(ids))[:5]} and more",
        )

    def wait_for_a_start(self, timeout: float = 20.0, after: float = 0.0) -> float:
        """When the first run after the time ``after`` started."""

        def first() -> float:
            runs = (run.at for found in self.runs().values() for run in found)
            return min((at for at in runs if at > after), default=0.0)

        return wait_for(first, timeout, what="a run")

    def wait_for_a_start_in(self, pid: int, timeout: float = 20.0) -> None:
        """Return when this process has started an input."""

        def has_one() -> bool:
            return any(run.pid == pid for runs in self.runs().values() for run in runs)

        wait_for(has_one, timeout, what=f"a run in process {pid}")

    def wait_until_started(self, ids: Sequence[str], timeout: float = 20.0) -> None:
        """Return when each of these has started."""
        wait_for(lambda: set(ids) <= set(self.runs()), timeout, what="a start of each")

    def idle_delays(self, count: int = 5) -> list[float]:
        """Seconds from publishing an input to its start in a node that was idle."""
        delays = []
        for _ in range(count):
            self.wait_until_done()
            published_at = time.time()
            (id,) = self.publish("anoop")
            self.wait_until_started([id])
            delays.append(self.runs()[id][0].at - published_at)
        return delays

    def _read_on(self) -> None:
        with self._record.open("rb") as record:
            record.seek(self._read_to)
            read = record.read()
        # A line that crosses a page is seen in part while it is being written.
        whole = read[: read.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.decode().splitlines():
            word, id, pid, redelivered, at = line.split()
            run = Run(id=id, pid=int(pid), redelivered=redelivered == "1", at=float(at))
            self._runs[word].setdefault(id, []).append(run)


def held_by_redis(url: str, prefix: str = "", queues: Sequence[str] = QUEUES) -> set[str]:
    """The ids of the inputs that wait in a queue or are registered as unacknowledged."""
    queued, unacked = redis_contents(url, prefix, queues)
    return queued | unacked


def redis_contents(
    url: str, prefix: str = "", queues: Sequence[str] = QUEUES
) -> tuple[set[str], set[str]]:
    """The ids that wait in the queues, and those that are unacknowledged, at one moment."""
    with redis.Redis.from_url(url) as client, client.pipeline() as pipe:
        for queue in queues:
            for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
                pipe.lrange(f"{prefix}{queue}{suffix}", 0, -1)
        pipe.hvals(f"{prefix}unacked")
        *queued, unacked = pipe.execute()
    return (
        {json.loads(message)["headers"]["id"] for messages in queued for message in messages},
        {json.loads(entry)[0]["headers"]["id"] for entry in unacked},
    )


def backlog(project: Project, queues: Sequence[str] = QUEUES) -> int:
    """How many inputs the broker has ready."""
    if project.broker.kind == "redis":  # to kombu an empty queue there is none
        return len(redis_contents(project.broker.url, queues=queues)[0])
    with kombu.Connection(project.broker.url) as connection:
        channel = connection.default_channel
        declared = [kombu.Queue(queue).bind(channel) for queue in queues]
        return sum(queue.queue_declare(passive=True)[1] for queue in declared)
