"""2,000 inputs at once in one node: each knows itself, and its log lines say so."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker
from tests.services.waiting import wait_for

COUNT = 2_000
SOURCE = """
import asyncio, logging, random
from celery import Celery, current_task
from celery_concurrent import acall, concurrent, current_function_call_id, current_input_id

app = Celery(__name__)
library = logging.getLogger("of.a.library")
library.setLevel(logging.INFO)

def check(self, id, where):
    found = (self.request.id, current_task.request.id, current_input_id())
    assert found == (id, id, id), (where, id, found)

def check_below(id, where):
    assert (current_input_id(), current_function_call_id()) == (id, id), (where, id)
    library.info("%s tells %s.", id, where)

@app.task(bind=True)
@concurrent(max_inputs=20)
def on_a_thread(self, parent):
    assert self.request.parent_id == parent, "published by another input"
    assert self.request.root_id == current_function_call_id() == parent
    return self.request.id

@app.task(bind=True)
@concurrent(max_inputs=2_000)
async def interleaved(self, id, retries):
    check(self, id, "at first")
    await asyncio.sleep(random.random())
    check(self, id, "after a pause")

    async def child():
        await asyncio.sleep(0.01)
        check_below(id, "child")

    task = asyncio.create_task(child())
    await asyncio.to_thread(check_below, id, "thread")
    await task
    print(f"{id} tells print.")
    check(self, id, "after children")
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    first = await acall(on_a_thread, id)
    second = await acall(on_a_thread, id)
    check(self, id, "after calls")
    assert len({first, second, id}) == 3
    library.info("%s tells end.", id)
    return self.request.id
"""


@pytest.mark.slow
def test_2000_interleaved_inputs_see_only_their_own_request_id_and_log_lines(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=broker)
    retries = [int(number % 5 == 0) for number in range(COUNT)]
    node = celery_node(project)
    results = [
        project.tasks.interleaved.apply_async((f"in-{number}", times), task_id=f"in-{number}")
        for number, times in enumerate(retries)
    ]
    for number, result in enumerate(results):
        assert result.get(timeout=60) == f"in-{number}"
    wait_for(lambda: node.log().count("tells end.") >= COUNT)
    lines = re.findall(r"/MainProcess (\S+)\] .*?(in-\d+) tells (\w+)\.", node.log())
    assert [line for line in lines if line[0] != line[1]] == []
    told = Counter((id, where) for _, id, where in lines)
    for number, times in enumerate(retries):
        for where in ("child", "thread", "print"):
            assert told[f"in-{number}", where] == 1 + times
