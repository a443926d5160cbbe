"""ETAs, retries and failures all mixed: max_inputs holds, and the broker's books are right."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import backlog

ASYNC, SYNC = 40, 12
COUNTS = [2_000, pytest.param(12_000, marks=[pytest.mark.chaos, pytest.mark.timeout(400)])]
SOURCE = f"""
import asyncio, os, threading, time
import redis
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.task_ignore_result = True
store = redis.Redis.from_url(os.environ.get("CELERY_RESULT_BACKEND", "redis://"))
lock = threading.Lock()
running = dict(on_loop=0, on_threads=0)
peaks = dict(on_loop=0, on_threads=0)

def enter(name):
    with lock:
        running[name] += 1
        if running[name] > peaks[name]:
            peaks[name] = running[name]
            with open(__file__ + ".peaks", "a") as told:
                told.write(f"{{name}} {{peaks[name]}}\\n")

def leave(name):
    with lock:
        running[name] -= 1

def finish(self, kind):
    if kind == "retry" and self.request.retries < 2:
        raise self.retry(countdown=0.01 * self.request.retries)
    store.incr("finished")
    if kind == "fail":
        raise KeyError(kind)

@app.task(bind=True, queue="mixed", max_retries=3)
@concurrent(max_inputs={ASYNC})
async def on_loop(self, kind, seconds):
    enter("on_loop")
    try:
        await asyncio.sleep(seconds)
        finish(self, kind)
    finally:
        leave("on_loop")

@app.task(bind=True, queue="mixed", max_retries=3)
@concurrent(max_inputs={SYNC})
def on_threads(self, kind, seconds):
    enter("on_threads")
    try:
        time.sleep(seconds)
        finish(self, kind)
    finally:
        leave("on_threads")
"""
#: One step, so that all is of the same moment. KEYS: unacked, the queue's lists.
LOOK = """
local messages = redis.call('HLEN', KEYS[1])
for key = 2, #KEYS do messages = messages + redis.call('LLEN', KEYS[key]) end
return {messages, tonumber(redis.call('GET', 'published') or 0),
        tonumber(redis.call('GET', 'finished') or 0)}
"""
KEYS = ["unacked", "mixed", *(f"mixed\x06\x16{priority}" for priority in (3, 6, 9))]


def publish(project: Project, store: redis.Redis, count: int) -> None:
    numbers = random.Random(7)
    for _ in range(count):
        is_async = numbers.random() < 0.7
        task = project.tasks.on_loop if is_async else project.tasks.on_threads
        # On threads there are fewer: they take longer, or a slow machine never fills the slots.
        seconds = numbers.random() / (100 if is_async else 10)
        task.apply_async(
            (numbers.choice(["ok", "ok", "ok", "fail", "retry"]), seconds),
            countdown=numbers.random() * 2 if numbers.random() < 0.2 else None,
            priority=numbers.choice([0, 3, 9]) if project.broker.kind == "redis" else None,
        )
        store.incr("published")


def peaks(project: Project) -> dict[str, int]:
    told = Path(f"{project.tasks.__file__}.peaks").read_text().splitlines()
    lines = [line.split() for line in told]
    return {name: max(int(peak) for told, peak in lines if told == name) for name, _ in lines}


def run(project: Project, count: int, look: Callable[[redis.Redis], Any]) -> None:
    """Publish all while the node works, looking at every moment, until all have finished."""
    with redis.Redis.from_url(project.broker.backend) as store:
        publisher = threading.Thread(target=publish, args=(project, store, count))
        publisher.start()

        def finished() -> bool:
            look(store)
            return int(store.get("finished") or 0) >= count

        wait_for(
            finished,
            60.0 + count / 50,
            what=lambda: f"{store.get('finished')!r} of {store.get('published')!r}",
        )
        publisher.join()
        look(store)


def check_peaks(project: Project) -> None:
    found = peaks(project)
    assert found["on_loop"] <= ASYNC
    assert found["on_threads"] <= SYNC
    assert min(found["on_loop"] / ASYNC, found["on_threads"] / SYNC) > 0.5, "never under load"


@pytest.mark.slow
@pytest.mark.batching
@pytest.mark.parametrize("count", COUNTS)
def test_mixed_inputs_never_exceed_max_inputs_and_redis_books_are_right(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, count: int
) -> None:
    """A message is in its queue or unacknowledged, as long as its input has not finished.

    Beyond that there are at most the slots: inputs that have finished, or published their
    retry, and are not acknowledged yet.
    """
    project = celery_project(SOURCE, broker=redis_broker)
    node = celery_node(project, "-Q", "mixed")
    looks: list[int] = []

    def look(store: redis.Redis) -> None:
        messages, published, finished = store.eval(LOOK, len(KEYS), *KEYS)
        looks.append(messages - (published - finished))

    run(project, count, look)
    assert min(looks) >= 0, "messages were lost"
    assert max(looks) <= ASYNC + SYNC + 1  # one may be published and not counted yet
    check_peaks(project)
    with redis.Redis.from_url(project.broker.url) as store:
        wait_for(lambda: not any(store.exists(key) for key in KEYS), what="empty books")
    assert node.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_mixed_inputs_never_exceed_max_inputs_on_rabbitmq(
    celery_project: MakeProject, celery_node: StartNode, rabbitmq_broker: Broker, count: int
) -> None:
    project = celery_project(SOURCE, broker=rabbitmq_broker)
    node = celery_node(project, "-Q", "mixed")
    run(project, count, lambda store: None)
    check_peaks(project)
    assert node.stop() == 0
    assert backlog(project, "mixed") == 0
