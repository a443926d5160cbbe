"""What a node tells and obeys: signals, handlers, events, inspect and control."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.services.node import Node
from tests.services.project import IS_UNBATCHED, Project
from tests.services.waiting import wait_for
from tests.services.witness import watching

WAIT = 20.0


def noted(project: Project, id: str) -> list[Any]:
    """What this input noted, in order; signals as ``[signal, task]``."""
    notes = project.tasks.NOTES
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [what for told, what in map(json.loads, lines) if told == id]


def signals(project: Project, id: str) -> list[str]:
    return [what[0] for what in noted(project, id) if isinstance(what, list)]


def told(project: Project, id: str, count: int) -> bool:
    return len(signals(project, id)) >= count


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    """Inputs that wait for it go on when it is touched, at the latest at the test's end."""
    made = tmp_path / "flag"
    yield made
    made.touch()


def test_signals_are_sent_within_the_input_in_order(
    project: Project, node: Node, kind: str
) -> None:
    good = ["task_prerun", "task_success", "task_postrun"]
    bad = ["task_prerun", "task_failure", "task_postrun"]
    again = ["task_prerun", "task_retry", "task_postrun"]
    for task, arguments, expected in (
        ("add", (1, 2), good),
        ("fail", (), bad),
        # The second try may start before the first has told of its end.
        ("retried", (1,), again + good),
    ):
        id = f"signals-{task}-{kind}"
        getattr(project.tasks, task)[kind].apply_async(arguments, task_id=id)
        wait_for(partial(told, project, id, len(expected)))
        if task == "retried":
            assert sorted(signals(project, id)) == sorted(expected)
        else:
            assert signals(project, id) == expected


def test_the_handlers_of_a_base_are_called(project: Project, node: Node, kind: str) -> None:
    id = f"handlers-{kind}"
    project.tasks.retried[kind].apply_async((1,), task_id=id)
    wait_for(lambda: {"on_retry", "after_return SUCCESS"} <= {str(x) for x in noted(project, id)})
    handlers = [what for what in noted(project, id) if isinstance(what, str)]
    # The retry may start before the handler of the first try is called.
    assert sorted(handlers) == [
        *("after_return SUCCESS", "before_start", "before_start", "on_retry", "on_success")
    ]


def test_events_tell_of_each_step(project: Project, node: Node, kind: str) -> None:
    with watching(project) as events:
        good = project.tasks.add[kind].delay(1, 2)
        bad = project.tasks.fail[kind].delay()
        events.wait(good.id, "task-succeeded")
        events.wait(bad.id, "task-failed")
    assert events.of(good.id) == ["task-received", "task-started", "task-succeeded"]
    assert events.of(bad.id) == ["task-received", "task-started", "task-failed"]


def test_inspect_shows_what_runs_and_what_waits(
    project: Project, node: Node, kind: str, flag: Path
) -> None:
    inspect = project.app.control.inspect([node.name], timeout=5)
    running = project.tasks.started[kind].delay(str(flag))
    later = project.tasks.add[kind].apply_async((1, 2), countdown=30)
    wait_for(lambda: running.state == "STARTED")

    def ids(reply: Any) -> str:
        return json.dumps(reply[node.name])

    assert running.id in ids(inspect.active())
    wait_for(lambda: later.id in ids(inspect.scheduled()))
    assert running.id in ids(inspect.query_task(running.id))
    assert "active" in ids(inspect.query_task(running.id))
    assert project.tasks.add[kind].name in ids(inspect.registered())
    assert "celery" in ids(inspect.active_queues())
    stats = inspect.stats()[node.name]
    assert stats["pool"]["max-concurrency"] >= 1
    assert stats["total"]
    flag.touch()
    running.get(timeout=WAIT)
    wait_for(lambda: running.id not in ids(inspect.active()))
    project.app.control.revoke(later.id)


def test_a_rate_limit_is_kept_and_lifted(project: Project, node: Node, kind: str) -> None:
    task, control = project.tasks.introspects[kind], project.app.control
    reply = control.rate_limit(task.name, "4/s", destination=[node.name], reply=True, timeout=5)
    assert "ok" in str(reply)
    start = time.monotonic()
    results = [task.delay() for _ in range(5)]
    for result in results:
        result.get(timeout=WAIT)
    assert time.monotonic() - start > 0.8
    control.rate_limit(task.name, "0", destination=[node.name], reply=True, timeout=5)
    start = time.monotonic()
    for result in [task.delay() for _ in range(20)]:
        result.get(timeout=WAIT)
    assert time.monotonic() - start < 4.0


def test_queues_can_be_added_and_cancelled(
    project: Project, node: Node, kind: str, pool: str
) -> None:
    if IS_UNBATCHED and pool == "eventlet":
        pytest.skip("kombu's pop from Redis that is under way may take from a cancelled queue")
    add, control = project.tasks.add[kind], project.app.control
    queue = f"extra-{kind}"
    control.add_consumer(queue, destination=[node.name], reply=True, timeout=5)
    assert add.apply_async((1, 2), queue=queue).get(timeout=WAIT) == 3
    control.cancel_consumer(queue, destination=[node.name], reply=True, timeout=5)
    waiting = add.apply_async((3, 4), queue=queue)
    assert add.delay(1, 2).get(timeout=WAIT) == 3  # a whole round trip later
    assert waiting.state == "PENDING"
    control.add_consumer(queue, destination=[node.name], reply=True, timeout=5)
    assert waiting.get(timeout=WAIT) == 7


def test_inputs_that_come_at_a_steady_pace_all_run(project: Project, node: Node, kind: str) -> None:
    """As beat publishes them: each finds an idle node that has to wake up."""
    for number in range(20):
        start = time.monotonic()
        result = project.tasks.add[kind].delay(number, 1)
        wait_for(result.ready)
        assert result.result == number + 1
        assert time.monotonic() - start < 2.0
