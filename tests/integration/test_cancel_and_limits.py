"""Revoke, soft and hard limit: each ends one input, its siblings and slots do not notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.witness import NOTING, Events, Notes, outcome, watching

LIMIT = 0.5
SOURCE = (
    NOTING
    + """
import asyncio, os
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery_concurrent import concurrent

app = Celery(__name__)
LIMIT = 0.5

def is_there(flag):
    return os.path.exists(os.path.join(os.path.dirname(__file__), flag))

def for_sync(flag, deaf=False):
    note("started")
    while not is_there(flag):
        try:
            time.sleep(0.02)
        except SoftTimeLimitExceeded:
            if not deaf:
                raise
    return flag

async def for_async(flag, deaf=False):
    note("started")
    while not is_there(flag):
        try:
            await asyncio.sleep(0.02)
        except SoftTimeLimitExceeded:
            if not deaf:
                raise
    return flag

def task(name, function, **options):
    # Each has a queue of its own: what waits for a slot waits in the broker.
    name = f"{__name__}.{name}"
    return app.task(concurrent(max_inputs=2)(copy(function)), name=name, queue=name, **options)

def copy(function):
    return type(function)(function.__code__, globals(), function.__name__, function.__defaults__)

tasks = {
    f"{kind}{suffix}": task(f"{kind}{suffix}", function, **options)
    for kind, function in (("sync", for_sync), ("async", for_async))
    for suffix, options in (
        ("", {}), ("-soft", {"soft_time_limit": LIMIT}), ("-hard", {"time_limit": LIMIT})
    )
}
"""
)
#: Worker options that both kinds of limit come from; a deaf input reaches the second.
OPTIONS = (f"--soft-time-limit={LIMIT}", f"--time-limit={2 * LIMIT}")
UNLIMITED = {"soft_time_limit": 60.0, "time_limit": 60.0}
BOTH = pytest.mark.parametrize("kind", ["async", "sync"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A node under test and its project."""

    project: Project
    notes: Notes
    events: Events

    def publish(self, task: str, flag: str, **options: Any) -> AsyncResult:
        deaf = options.pop("deaf", False)
        return self.project.tasks.tasks[task].apply_async((flag, deaf), **options)

    def raise_flag(self, flag: str) -> None:
        Path(self.project.folder, flag).touch()


@pytest.fixture(
    scope="module", params=["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)
def start_bench(
    request: pytest.FixtureRequest,
    module_project: MakeProject,
    module_node: StartNode,
    module_redis_broker: Broker,
) -> Iterator[Callable[..., Bench]]:
    closing = ExitStack()

    def start(*options: str) -> Bench:
        project = module_project(SOURCE, broker=module_redis_broker)
        events = closing.enter_context(watching(project))
        queues = ",".join(task.name for task in project.tasks.tasks.values())
        node = module_node(project, "-E", "-Q", queues, *options, pool=request.param)
        closing.callback(node.kill)
        return Bench(project=project, notes=Notes(project), events=events)

    with closing:
        yield start


@pytest.fixture(scope="module")
def unlimited(start_bench: Callable[..., Bench]) -> Bench:
    return start_bench()


@pytest.fixture(scope="module")
def limited(start_bench: Callable[..., Bench]) -> Bench:
    return start_bench(*OPTIONS)


class Trio:
    """Three inputs of a function with two slots: the victim, its sibling, and one that waits."""

    def __init__(self, bench: Bench, task: str, **victims: Any) -> None:
        self.bench = bench
        self.flag = f"flag-{time.monotonic_ns()}"
        self.victim = bench.publish(task, "never", **victims)
        self.sibling = bench.publish(task, self.flag, **UNLIMITED)
        self.started = bench.notes.wait(self.victim.id, "started")
        bench.notes.wait(self.sibling.id, "started")
        bench.raise_flag("always")
        self.waiting = bench.publish(task, "always", **UNLIMITED)

    def ends(self, at: float, error: type[BaseException], state: str, event: str) -> None:
        """The victim ends at that time of day, in this way, and only it does."""
        bench = self.bench
        # The sibling goes on until its flag is raised, so this slot is the victim's.
        assert bench.notes.wait(self.waiting.id, "started") < at + 1.0
        assert outcome(self.waiting) == "always"
        assert bench.notes.of(self.sibling.id) == ["started"]
        assert self.sibling.state == "PENDING"
        bench.raise_flag(self.flag)
        assert outcome(self.sibling) == self.flag
        assert isinstance(outcome(self.victim), error)
        assert self.victim.state == state
        assert bench.notes.of(self.victim.id) == ["started"]
        bench.events.wait(self.sibling.id, "task-succeeded")
        for id, last in ((self.victim.id, event), (self.sibling.id, "task-succeeded")):
            assert bench.events.of(id) == ["task-received", "task-started", last]


@BOTH
def test_a_revoked_input_ends_alone(unlimited: Bench, kind: str) -> None:
    trio = Trio(unlimited, kind)
    asked = time.time()
    trio.victim.revoke(terminate=True)
    trio.ends(asked, TaskRevokedError, "REVOKED", "task-revoked")


@BOTH
@pytest.mark.parametrize("given", ["with its task", "with its call"])
def test_an_input_over_its_soft_limit_fails_alone(unlimited: Bench, kind: str, given: str) -> None:
    if given == "with its task":
        trio = Trio(unlimited, f"{kind}-soft")
    else:
        trio = Trio(unlimited, kind, soft_time_limit=LIMIT)
    trio.ends(trio.started + LIMIT, SoftTimeLimitExceeded, "FAILURE", "task-failed")


@BOTH
@pytest.mark.parametrize("given", ["with its task", "with its call"])
def test_an_input_over_its_hard_limit_fails_alone(unlimited: Bench, kind: str, given: str) -> None:
    if given == "with its task":
        trio = Trio(unlimited, f"{kind}-hard")
    else:
        trio = Trio(unlimited, kind, time_limit=LIMIT)
    trio.ends(trio.started + LIMIT, TimeLimitExceeded, "FAILURE", "task-failed")


@BOTH
def test_the_workers_soft_limit_holds_for_its_inputs(limited: Bench, kind: str) -> None:
    trio = Trio(limited, kind)
    trio.ends(trio.started + LIMIT, SoftTimeLimitExceeded, "FAILURE", "task-failed")


@BOTH
def test_the_workers_hard_limit_holds_for_its_inputs(limited: Bench, kind: str) -> None:
    trio = Trio(limited, kind, deaf=True)
    trio.ends(trio.started + 2 * LIMIT, TimeLimitExceeded, "FAILURE", "task-failed")


@BOTH
def test_a_revoke_goes_before_the_workers_limits(limited: Bench, kind: str) -> None:
    trio = Trio(limited, kind, **UNLIMITED)
    asked = time.time()
    trio.victim.revoke(terminate=True)
    trio.ends(asked, TaskRevokedError, "REVOKED", "task-revoked")
