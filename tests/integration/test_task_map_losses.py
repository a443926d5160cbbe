"""Publishing that breaks off in the middle: what went out is told, and nothing else did."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest
from kombu import Queue

from celery_concurrent import PublishError, task_map
from celery_concurrent.bulk import sending
from tests.services.fixtures import MakeProject
from tests.services.process import Process, free_port
from tests.services.project import Broker, Project
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer

SOURCE = """
from celery import Celery

app = Celery(__name__)

@app.task(ignore_result=True)
def plain(number):
    return number
"""
CHUNK = 50
#: Where the code is that publishes.
PUBLISHING = f"celery_concurrent{os.sep}bulk{os.sep}"
LONG = "x" * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A broker behind a proxy."""

    proxy: Proxy
    broker: Broker


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    server: RedisServer | RabbitMQServer = request.getfixturevalue(f"{request.param}_server")
    direct: Broker = request.getfixturevalue(f"{request.param}_broker")
    proxy = Proxy(server.port)
    url = direct.url.replace(f":{server.port}/", f":{proxy.port}/")
    try:
        broker = Broker(kind=direct.kind, url=url, backend=direct.backend)
        yield Behind(proxy=proxy, broker=broker)
    finally:
        proxy.close()


def waiting(project: Project, queue: str = "celery") -> list[str]:
    """The ids of the inputs in a queue, in their order."""
    with project.app.connection_for_write() as connection:
        channel = connection.default_channel
        found = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(message.properties["correlation_id"])
    return found


def numbers(behind: Behind) -> Iterator[str]:
    """Four chunks; the connection is lost in the middle of the third one."""
    for number in range(4 * CHUNK):
        if number == 2 * CHUNK:
            behind.proxy.cut_after(CHUNK * len(LONG) // 2)
        yield f"{number} {LONG}"


@pytest.mark.parametrize("pipeline", [10_000, 20])
@pytest.mark.parametrize("retry", [False, True])
def test_a_connection_that_is_lost_in_a_chunk(
    behind: Behind,
    celery_project: MakeProject,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    retry: bool,
    pipeline: int,
) -> None:
    monkeypatch.setattr(sending, "PIPELINE", pipeline)
    project = celery_project(SOURCE, broker=behind.broker)
    mapped = task_map(project.tasks.plain, numbers(behind), chunk=CHUNK, retry=retry)
    with caplog.at_level(logging.WARNING):
        if retry:
            handles = mapped.publish()
            published, uncertain = [handle.id for handle in handles], []
        else:
            with pytest.raises(PublishError, match="not all published") as caught:
                mapped.publish()
            published = [handle.id for handle in caught.value.published]
            uncertain = [handle.id for handle in caught.value.uncertain]
            assert [handle.id for handle in mapped.uncertain] == uncertain
    found = waiting(project)
    assert set(published) <= set(found) <= {*published, *uncertain}
    assert found[: 2 * CHUNK] == published[: 2 * CHUNK]
    if retry:
        assert len(published) == 4 * CHUNK
        # What was on its way has arrived twice, with the same ids, and that is told.
        assert re.search(r"\d+ inputs \(.* to .* are sent again with the same ids", caplog.text)
        assert {id for id in found if found.count(id) > 1} <= {*published[2 * CHUNK : 3 * CHUNK]}
    else:
        # Some of the chunk may have been confirmed, some never written.
        assert 2 * CHUNK <= len(published) < 3 * CHUNK
        assert 0 < len(uncertain) <= CHUNK


def test_a_broker_that_is_gone(behind: Behind, celery_project: MakeProject) -> None:
    gone = behind.broker.url.replace(f":{behind.proxy.port}/", f":{free_port()}/")
    broker = Broker(kind=behind.broker.kind, url=gone, backend=behind.broker.backend)
    project = celery_project(SOURCE, broker=broker)
    policy = {"max_retries": 1, "interval_start": 0.01}
    mapped = task_map(project.tasks.plain, range(10), retry_policy=policy)
    with pytest.raises(PublishError):
        mapped.publish()
    assert mapped.published == []


def test_the_loop_runs_on_while_the_broker_does_not_answer(
    behind: Behind, celery_project: MakeProject
) -> None:
    project = celery_project(SOURCE, broker=behind.broker)
    project.tasks.plain.delay(0)

    async def main() -> None:
        behind.proxy.freeze()
        publishing = asyncio.create_task(task_map(project.tasks.plain, range(10)).apublish())
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not publishing.done()
        behind.proxy.thaw()
        assert len(await publishing) == 10

    asyncio.run(main())
    assert len(waiting(project)) == 11


@pytest.mark.parametrize("confirm_publish", [False, True])
def test_what_rabbitmq_refuses_is_told(
    celery_project: MakeProject, rabbitmq_broker: Broker, confirm_publish: bool
) -> None:
    project = celery_project(SOURCE, broker=rabbitmq_broker)
    project.app.conf.broker_transport_options = {"confirm_publish": confirm_publish}
    full = {"x-max-length": 3, "x-overflow": "reject-publish"}
    queue = Queue("full", queue_arguments=full)
    with pytest.raises(PublishError, match="the broker refused 2 inputs") as caught:
        task_map(project.tasks.plain, range(5), queue=queue).publish()
    assert len(caught.value.refused) == 2
    assert caught.value.uncertain == []
    assert waiting(project, "full") == [handle.id for handle in caught.value.published]
    nowhere: dict[str, Any] = {
        "exchange": "amq.direct",
        "routing_key": "nowhere",
        "mandatory": True,
    }
    with pytest.raises(PublishError, match="the broker refused 4 inputs") as caught:
        task_map(project.tasks.plain, range(4), **nowhere).publish()
    assert len(caught.value.refused) == 4
    assert caught.value.published == []
    # The connection that it went out on serves on.
    assert project.tasks.plain.delay(1).id in waiting(project)


CTRL_C = """
import sys
from celery_concurrent import task_map
from {name} import plain

def numbers():
    number = 0
    while True:
        yield number
        number += 1
        if number == 1_000:
            print("running", flush=True)

mapped = task_map(plain, numbers(), chunk=100)
try:
    {use}
except KeyboardInterrupt:
    print("published", len(mapped.published), len(mapped.uncertain), flush=True)
"""


def endless(project: Project, use: str) -> Process:
    """A program that publishes without end, and has begun to."""
    script = project.folder / "endless.py"
    script.write_text(CTRL_C.format(name=project.name, use=use))
    environ = {**project.environ, "PYTHONPATH": str(project.folder)}
    log = project.folder / "endless.log"
    process = Process([sys.executable, script], log_path=log, env=environ)
    process.wait_for_log("running", 30)
    return process


@pytest.mark.parametrize(
    "use",
    ["mapped.publish()", "import asyncio; asyncio.run(mapped.apublish())"],
    ids=["publish", "apublish"],
)
def test_ctrl_c_keeps_account(broker: Broker, celery_project: MakeProject, use: str) -> None:
    project = celery_project(SOURCE, broker=broker)
    process = endless(project, use)
    process.signal(signal.SIGINT)
    assert process.wait(30) == 0, process.log()
    _, published, uncertain = process.log().splitlines()[-1].split()
    found = len(waiting(project))
    assert int(published) <= found <= int(published) + int(uncertain)
    assert int(published) >= 900
    assert int(uncertain) <= 100


def test_ctrl_c_ends_it_while_the_broker_does_not_answer(
    behind: Behind, celery_project: MakeProject
) -> None:
    process = endless(celery_project(SOURCE, broker=behind.broker), "mapped.publish()")
    behind.proxy.freeze()
    process.signal(signal.SIGINT)
    assert process.wait(30) == 0, process.log()
    assert process.log().splitlines()[-1].startswith("published")


def interrupted_at(line: int, publish: Callable[[], object]) -> bool:
    """Ctrl-C before the ``line``-th line of the package that publishes; False when it ends first.

    In a thread of its own: a tracer that raises may leave its thread with an exception that
    counts as being handled for ever (CPython 3.11).
    """
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if PUBLISHING not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                raise KeyboardInterrupt
        return trace

    def body() -> None:
        sys.settrace(trace)
        with contextlib.suppress(KeyboardInterrupt):
            publish()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return left <= 0


@pytest.mark.parametrize(
    ("options", "pipeline"),
    [({}, 10_000), ({}, 1), ({"group_id": "g"}, 10_000)],
    ids=["together", "in_pieces", "one_by_one"],
)
def test_ctrl_c_at_any_line_keeps_account(
    broker: Broker,
    celery_project: MakeProject,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    pipeline: int,
) -> None:
    monkeypatch.setattr(sending, "PIPELINE", pipeline)
    project = celery_project(SOURCE, broker=broker)
    task_map(project.tasks.plain, range(1)).publish()  # what is done once, is done
    waiting(project)
    for line in itertools.count(1):
        mapped = task_map(project.tasks.plain, range(3), chunk=2, **options)
        was_interrupted = interrupted_at(line, mapped.publish)
        published = {handle.id for handle in mapped.published}
        uncertain = {handle.id for handle in mapped.uncertain}
        found = waiting(project)
        assert not published & uncertain, line
        assert published <= set(found) <= published | uncertain, line
        assert len(found) == len(set(found)), line
        if not was_interrupted:
            break
    assert len(published) == 3
    assert line > 50
