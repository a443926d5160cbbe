"""A node within a program, as Celery's own test helpers start it, on transports without a hub."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from celery_concurrent import concurrent
from tests.services.waiting import wait_for


@pytest.fixture(params=["memory", "filesystem"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = Celery(f"in_a_program_{request.param}", broker=f"{request.param}://")
    made.conf.update(result_backend="cache+memory://", broker_connection_retry_on_startup=True)
    if request.param == "filesystem":
        (tmp_path / "queue").mkdir()
        made.conf.broker_transport_options = {
            "data_folder_in": str(tmp_path / "queue"),
            "data_folder_out": str(tmp_path / "queue"),
            "control_folder": str(tmp_path / "control"),
        }
    yield made
    made.close()


def all_ready(results: list[Any]) -> bool:
    return all(result.ready() for result in results)


def test_a_node_in_a_program_runs_async_and_sync_inputs_at_once(app: Any) -> None:
    lock = threading.Lock()
    running, peak = {"async": 0, "sync": 0}, {"async": 0, "sync": 0}

    def enter(kind: str) -> None:
        with lock:
            running[kind] += 1
            peak[kind] = max(peak[kind], running[kind])

    def leave(kind: str) -> None:
        with lock:
            running[kind] -= 1

    @app.task(name="program.coroutine")
    @concurrent(max_inputs=5)
    async def coroutine(number: int) -> int:
        enter("async")
        await asyncio.sleep(0.2)
        leave("async")
        return number

    @app.task(name="program.sync")
    @concurrent(max_inputs=4)
    def sync(number: int) -> int:
        enter("sync")
        time.sleep(0.2)
        leave("sync")
        return number

    # Before the node starts: kombu's filesystem transport reads files that are being written.
    results = [task.delay(number) for task in (coroutine, sync) for number in range(12)]
    # Its concurrency is 1 unless told, which caps the node as -c 1 does.
    options = {"concurrency": 9, "perform_ping_check": False, "shutdown_timeout": 20}
    with start_worker(app, pool="concurrent", **options):
        wait_for(partial(all_ready, results), 40)
    assert [each.result for each in results] == [*range(12), *range(12)]
    assert 1 < peak["async"] <= 5
    assert 1 < peak["sync"] <= 4
