"""Results that the garbage collector ends in the midst of an async input."""

from __future__ import annotations

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker
from tests.services.witness import outcome

APP = """
    import asyncio
    import gc
    import threading

    from celery import Celery
    from celery.result import AsyncResult
    from celery_concurrent import concurrent

    app = Celery(__name__)
    lock = threading.Lock()

    @app.task(queue="q")
    @concurrent(max_inputs=10)
    async def collect():
        for _ in range(5):
            result = AsyncResult("some", app=app)
            result.itself = result
            del result
            # As a library has it, for a moment: the standard library's executors do.
            with lock:
                gc.collect()
            await asyncio.sleep(0)
        return 1
"""


@pytest.mark.parametrize(
    "pool", ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
)
def test_they_leave_no_lock_behind(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=broker)
    celery_node(project, "-Q", "q", pool=pool)
    results = [project.tasks.collect.delay() for _ in range(10)]
    assert [outcome(result, 20) for result in results] == [1] * 10
