"""What works in Celery's threads pool works in ours: results, workflows, retries."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import ChordError

from tests.services.node import Node
from tests.services.project import Project
from tests.services.waiting import wait_for
from tests.services.witness import outcome, unacked

pytestmark = pytest.mark.usefixtures("node")
WAIT = 20.0


def test_a_result_is_stored(project: Project, kind: str) -> None:
    assert project.tasks.add[kind].delay(1, 2).get(timeout=WAIT) == 3


def test_an_error_is_stored_with_its_type_and_traceback(project: Project, kind: str) -> None:
    result = project.tasks.fail[kind].delay()
    with pytest.raises(KeyError, match="failed on purpose"):
        result.get(timeout=WAIT)
    assert result.state == "FAILURE"
    assert "KeyError" in result.traceback


def test_wrong_arguments_fail_the_input(project: Project, kind: str) -> None:
    result = project.app.send_task(project.tasks.add[kind].name, (1, 2, 3))
    with pytest.raises(TypeError):
        result.get(timeout=WAIT)


def test_chains_groups_and_chords_run(project: Project, kind: str) -> None:
    add, total = project.tasks.add[kind], project.tasks.total[kind]
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=WAIT) == 10
    assert group(add.s(n, n) for n in range(10))().get(timeout=WAIT) == [2 * n for n in range(10)]
    assert chord(add.s(n, n) for n in range(10))(total.s()).get(timeout=WAIT) == 90
    nested = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s())
    assert nested().get(timeout=WAIT) == 7


def test_starmap_and_chunks_run_a_sync_task(project: Project) -> None:
    add = project.tasks.add["sync"]
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=WAIT) == [3, 7]
    assert add.chunks([(n, n) for n in range(4)], 2)().get(timeout=WAIT) == [[0, 2], [4, 6]]


def test_a_failure_in_a_chord_fails_its_body_and_calls_its_errback(
    project: Project, kind: str
) -> None:
    tasks = project.tasks
    body = tasks.total[kind].s().on_error(tasks.failed[kind].s().set(task_id=f"chord-{kind}"))
    result = chord([tasks.add[kind].s(1, 2), tasks.fail[kind].s()])(body)
    wait_for(lambda: result.state == "FAILURE", WAIT)
    assert isinstance(result.result, ChordError)
    assert "failed on purpose" in str(result.result)
    wait_for(lambda: "failed" in Path(tasks.NOTES).read_text())


def test_callbacks_and_errbacks_are_called(project: Project, kind: str) -> None:
    tasks = project.tasks
    linked = tasks.add[kind].s(10).set(task_id=f"linked-{kind}")
    tasks.add[kind].apply_async((1, 2), link=linked)
    assert outcome(project.app.AsyncResult(f"linked-{kind}"), WAIT) == 13
    before = Path(tasks.NOTES).read_text().count('"failed"') if tasks.NOTES.exists() else 0
    tasks.fail[kind].apply_async(link_error=tasks.failed[kind].s())
    wait_for(lambda: Path(tasks.NOTES).read_text().count('"failed"') > before)


def test_retries_count_and_end(project: Project, kind: str) -> None:
    assert project.tasks.retried[kind].delay(3).get(timeout=WAIT) == 3
    assert project.tasks.autoretried[kind].delay(2).get(timeout=WAIT) == 2
    with pytest.raises(Exception, match="for ever") as caught:
        project.tasks.exhausted[kind].delay().get(timeout=WAIT)
    assert type(caught.value).__name__ == "FlakyError"


def test_a_task_may_replace_itself(project: Project, kind: str) -> None:
    assert project.tasks.replaced[kind].delay(kind, 1).get(timeout=WAIT) == 12


def test_an_ignored_result_is_not_stored(project: Project, kind: str) -> None:
    id = f"forgotten-{kind}"
    result = project.tasks.forgotten[kind].apply_async(task_id=id)
    wait_for(lambda: project.tasks.NOTES.exists() and id in project.tasks.NOTES.read_text())
    project.tasks.add[kind].delay(1, 2).get(timeout=WAIT)
    assert project.app.AsyncResult(result.id).state == "PENDING"


def test_states_are_told_while_the_input_runs(project: Project, kind: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    started = project.tasks.started[kind].delay(str(flag))
    progressing = project.tasks.waits[kind].delay(str(flag))
    wait_for(lambda: started.state == "STARTED")
    wait_for(lambda: progressing.state == "PROGRESS")
    assert progressing.info == {"done": 3}
    flag.touch()
    assert started.get(timeout=WAIT) == "seen"


def test_other_serializers_work(project: Project, kind: str) -> None:
    assert project.tasks.pickled[kind].delay({1, 2}).get(timeout=WAIT) == [0, 1, 2]


def test_a_task_may_acknowledge_early(project: Project, kind: str) -> None:
    assert project.tasks.early[kind].delay().get(timeout=WAIT) is False


def test_eta_expires_and_countdown_are_kept(project: Project, kind: str) -> None:
    add = project.tasks.add[kind]
    assert add.apply_async((1, 2), countdown=0.2).get(timeout=WAIT) == 3
    late = add.apply_async((1, 2), countdown=0.5, expires=0.1)
    wait_for(lambda: late.state == "REVOKED", WAIT)


def test_the_request_tells_what_it_should(project: Project, node: Node, kind: str) -> None:
    task = project.tasks.introspects[kind]
    found = task.apply_async(headers={"mine": "yes"}, task_id=f"introspects-{kind}")
    assert found.get(timeout=WAIT) == {
        "id": f"introspects-{kind}",
        "root": f"introspects-{kind}",
        "hostname": node.name,
        "retries": 0,
        "header": "yes",
        "queue": "celery",
        "called_directly": False,
        "is_eager": False,
    }


def test_a_message_of_protocol_1_runs(project: Project, kind: str) -> None:
    broker = project.broker
    with Celery(broker=broker.url, backend=broker.backend, set_as_current=False) as client:
        client.conf.task_protocol = 1
        sent = client.send_task(project.tasks.introspects[kind].name, task_id=f"old-{kind}")
        found = sent.get(timeout=WAIT)
    assert (found["id"], found["called_directly"]) == (f"old-{kind}", False)


def test_a_task_that_calls_itself_has_a_request_for_each_call(project: Project) -> None:
    found = project.tasks.recursive["sync"].apply_async((2,), task_id="recursive")
    assert found.get(timeout=WAIT) == [2, 1, 0, 0, 1, 2]


def test_an_async_task_that_calls_itself_keeps_its_request(project: Project) -> None:
    found = project.tasks.recursive["async"].apply_async((2,), task_id="recursive-async")
    assert found.get(timeout=WAIT) == [2, 2, 2, 2, 2, 2]


def test_children_know_their_parent(project: Project, kind: str) -> None:
    result = project.tasks.calls[kind].delay(kind)
    parent, child = result.get(timeout=WAIT)
    assert parent == result.id
    wait_for(lambda: [each.id for each in result.children or ()] == [child])


def test_a_rejected_message_is_gone(project: Project, kind: str) -> None:
    result = project.tasks.rejected[kind].delay()
    noted = f'["{result.id}", "rejected"]'
    wait_for(lambda: project.tasks.NOTES.exists() and noted in project.tasks.NOTES.read_text())
    wait_for(lambda: unacked(project) == 0)
    assert project.tasks.NOTES.read_text().count(noted) == 1
