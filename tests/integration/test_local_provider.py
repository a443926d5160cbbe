"""Nodes as processes of this machine: started, pinned, drained, adopted, never forgotten."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from celery_concurrent.autoscaler.local import starting
from celery_concurrent.autoscaler.local.folder import FolderInUseError
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.autoscaler.local.records import Records
from celery_concurrent.autoscaler.provider import NodeStartError, ProcessState
from celery_concurrent.gpu.locks import DeviceLock, DeviceTakenError
from tests.services import witness
from tests.services.fixtures import MakeProject
from tests.services.fleet import Fleet, Nodes, node, nodes_of, wait_for_end
from tests.services.load import ROUNDS
from tests.services.process import Process
from tests.services.project import Broker
from tests.services.waiting import wait_for
from tests.services.witness import outcome

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="the local provider is Linux's")]

SOURCE = """
import os, random, subprocess, sys, time
from celery import Celery
from celery_concurrent import concurrent

app = Celery(__name__)

@app.task(queue="work")
@concurrent(max_inputs=4)
def seen():
    return {
        "pin": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "pid": os.getpid(),
        "session": os.getsid(0),
        "random": random.random(),
    }

@app.task(queue="work")
@concurrent(max_inputs=4)
def began():
    return time.time()

@app.task(queue="work", track_started=True)
@concurrent(max_inputs=4)
def nap(seconds):
    time.sleep(seconds)
    return seconds

@app.task(queue="work")
@concurrent(max_inputs=4)
def leave_a_child():
    return subprocess.Popen(["sleep", "600"]).pid

@app.task(queue="work")
@concurrent(max_inputs=4)
def talk(lines):
    for _ in range(lines):
        print("x" * 100)
    return lines
"""
WORK = Fleet(queue="work")
PIN = {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb"}


@pytest.fixture
def nodes(celery_project: MakeProject, redis_broker: Broker, tmp_path: Path) -> Iterator[Nodes]:
    with nodes_of(celery_project(SOURCE, broker=redis_broker), tmp_path / "state") as nodes:
        yield nodes


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "fresh"])
def test_a_node_is_pinned_named_and_in_a_session_of_its_own(nodes: Nodes, fork: bool) -> None:
    provider = nodes.provider(fork=fork)
    name = provider.start(WORK, PIN)
    told = node(provider, name)
    assert (told.devices, told.queue) == (("GPU-aaaa", "GPU-bbbb"), "work")
    seen = outcome(nodes.project.tasks.seen.delay(), 30.0)
    assert seen["pin"] == PIN["CUDA_VISIBLE_DEVICES"]
    assert seen["session"] == seen["pid"] == told.pid
    words = psutil.Process(told.pid).cmdline()
    assert words[words.index("-n") + 1] == name
    assert nodes.project.broker.url not in " ".join(words)


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "fresh"])
def test_a_node_keeps_the_locks_of_its_devices_until_it_ends(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: bool
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    locks = [DeviceLock.take(device, owner="shop") for device in ("GPU-aaaa", "GPU-bbbb")]
    held = {lock.uuid: lock.fileno() for lock in locks}
    provider = nodes.provider(fork=fork, handed=lambda env: held if "GPU" in str(env) else {})
    name = provider.start(WORK, PIN)
    for lock in locks:
        lock.release()
    with pytest.raises(DeviceTakenError):  # from its first instant on
        DeviceLock.take("GPU-bbbb")
    nodes.wait_until_ready(name)
    # No other node, nor the template, holds what this one was given.
    nodes.wait_until_ready(provider.start(WORK, {}))
    for device in ("GPU-aaaa", "GPU-bbbb"):
        with pytest.raises(DeviceTakenError) as caught:
            DeviceLock.take(device, owner="other")
        assert caught.value.pids == tuple(sorted([os.getpid(), node(provider, name).pid or 0]))
    with DeviceLock.take("GPU-aaaa", owner="shop") as again:
        assert again.held
    provider.stop(name)
    wait_for_end(provider, name)
    for device in ("GPU-aaaa", "GPU-bbbb"):
        DeviceLock.take(device, owner="other").release()


def test_forked_nodes_draw_different_numbers(nodes: Nodes) -> None:
    provider = nodes.provider()
    drawn = []
    for _ in range(2):
        name = provider.start(WORK, {})
        drawn.append(outcome(nodes.project.tasks.seen.delay(), 30.0)["random"])
        provider.stop(name)
        assert wait_for_end(provider, name).exit_code == -signal.SIGKILL
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "fresh"])
def test_a_drained_node_finishes_its_inputs(nodes: Nodes, fork: bool) -> None:
    provider = nodes.provider(fork=fork)
    name = provider.start(WORK, {})
    nodes.wait_until_ready(name)
    result = nodes.project.tasks.nap.delay(1.5)
    wait_for(lambda: result.state == "STARTED", what="the input's start")
    provider.drain(name)
    provider.drain(name)
    assert node(provider, name).state is ProcessState.DRAINING
    assert wait_for_end(provider, name).exit_code == 0
    assert outcome(result) == 1.5
    provider.stop(name)
    assert not provider.list()


def test_a_node_that_drains_too_long_is_ended(nodes: Nodes) -> None:
    provider = nodes.provider(drain_timeout=1.0)
    name = provider.start(WORK, {})
    nodes.wait_until_ready(name)
    result = nodes.project.tasks.nap.delay(60)
    wait_for(lambda: result.state == "STARTED", what="the input's start")
    provider.drain(name)
    assert wait_for_end(provider, name, 5.0).exit_code == -signal.SIGKILL


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "fresh"])
def test_a_dead_node_is_noticed_at_once(nodes: Nodes, fork: bool) -> None:
    provider = nodes.provider(fork=fork)
    name = provider.start(WORK, {})
    nodes.wait_until_ready(name)
    pid = node(provider, name).pid
    assert pid is not None
    before = nodes.changes
    os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    wait_for(lambda: nodes.changes > before, 5.0, what="a change")
    assert time.monotonic() - died < 1.0
    ended = node(provider, name)
    assert (ended.state, ended.exit_code) == (ProcessState.ENDED, -signal.SIGKILL)
    assert any("ready." in line for line in ended.last_lines)


def test_what_a_node_leaves_behind_ends_with_it(nodes: Nodes) -> None:
    provider = nodes.provider()
    name = provider.start(WORK, {})
    child = outcome(nodes.project.tasks.leave_a_child.delay(), 30.0)
    assert psutil.pid_exists(child)
    provider.stop(name)
    wait_for_end(provider, name)
    wait_for(lambda: not psutil.pid_exists(child), what="the end of the node's child")


def test_a_full_disk_under_the_logs_kills_nobody(nodes: Nodes) -> None:
    for fork in (True, False):
        name = f"full-{fork}@here"
        provider = nodes.provider(fork=fork, name_of=lambda _, name=name: name)
        (nodes.folder / "logs" / f"full-{fork}.log").symlink_to("/dev/full")
        provider.start(WORK, {})
        assert outcome(nodes.project.tasks.talk.delay(100), 30.0) == 100
        provider.drain(name)
        assert wait_for_end(provider, name).exit_code == 0
        provider.close()


def test_a_node_without_room_for_its_record_does_not_start(nodes: Nodes) -> None:
    provider = nodes.provider(fork=False)
    shutil.rmtree(nodes.folder / "nodes")
    with pytest.raises(NodeStartError, match="could not be started"):
        provider.start(WORK, {})
    assert not provider.list()
    assert not nodes.processes()


EXHAUSTED = """
import os, resource, sys
from pathlib import Path
from tests.services.fleet import Fleet
from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.autoscaler.provider import NodeStartError
from tests.services.waiting import wait_for

provider = LocalProvider(Command(app=sys.argv[1]), folder=Path(sys.argv[2]), drain_timeout=20.0)
wait_for(lambda: provider._starter.template.is_ready, 20.0)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
os.close(held.pop())
os.close(held.pop())  # for the record and the log, and none for the process
try:
    provider.start(Fleet(queue="work"), {})
except NodeStartError as error:
    print(error)
for each in held:
    os.close(each)
provider.close(stop_all=True)
"""


def test_a_node_for_which_no_descriptor_is_left_is_made_to_leave(nodes: Nodes) -> None:
    script = nodes.folder.parent / "exhausted.py"
    script.write_text(EXHAUSTED)
    done = subprocess.run(
        [sys.executable, script, nodes.project.name, nodes.folder],
        cwd=nodes.project.folder,
        env={**nodes.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{nodes.project.folder}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "no descriptor is left to hold its process by" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert not nodes.processes()
    assert not list((nodes.folder / "nodes").iterdir())


@pytest.mark.parametrize(
    ("at_import", "reason"),
    [
        ('os.environ.get("CUDA_VISIBLE_DEVICES")', "the app reads CUDA_VISIBLE_DEVICES"),
        ("import threading; threading.Thread(target=time.sleep, args=[99], daemon=True).start()",
         "1 thread(s) running"),
        ("import socket; kept = socket.socketpair()", "a connection or event loop open"),
    ],
    ids=["environment", "threads", "sockets"],
)  # fmt: skip
def test_what_a_fork_would_break_is_started_fresh_and_said_once(
    celery_project: MakeProject,
    redis_broker: Broker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    at_import: str,
    reason: str,
) -> None:
    project = celery_project(f"{textwrap.dedent(SOURCE)}\n{at_import}\n", broker=redis_broker)
    with nodes_of(project, tmp_path / "state") as nodes, caplog.at_level(logging.WARNING):
        provider = nodes.provider()
        names = [provider.start(WORK, PIN) for _ in range(2)]
        for name in names:
            process = psutil.Process(node(provider, name).pid)
            assert process.ppid() == os.getpid()
        told = [r.getMessage() for r in caplog.records if "fresh" in r.getMessage()]
        assert len(told) == 1
        assert reason in told[0]


def test_numpys_threads_do_not_stand_in_the_way_of_a_fork(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path
) -> None:
    pytest.importorskip("numpy")
    source = f"import numpy\n{textwrap.dedent(SOURCE)}"
    with nodes_of(celery_project(source, broker=redis_broker), tmp_path / "state") as nodes:
        provider = nodes.provider()
        name = provider.start(WORK, {})
        assert psutil.Process(node(provider, name).pid).ppid() != os.getpid()
        assert outcome(nodes.project.tasks.nap.delay(0), 30.0) == 0


def test_without_its_template_nodes_live_and_others_start_fresh(nodes: Nodes) -> None:
    provider = nodes.provider()
    forked = provider.start(WORK, {})
    nodes.wait_until_ready(forked)
    template = psutil.Process(node(provider, forked).pid).parent()
    assert template is not None
    template.kill()
    fresh = provider.start(WORK, {})
    nodes.wait_until_ready(fresh)
    assert sorted(nodes.processes().values()) == sorted([forked, fresh])
    provider.drain(forked)
    assert wait_for_end(provider, forked).exit_code is None  # its parent is gone


def test_a_template_that_is_lost_is_started_anew_unless_that_does_not_last(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(starting, "LASTS", 0.0)
    provider = nodes.provider()
    first = provider._starter.template
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: provider._starter.template is not first and _is_ready(provider), 20.0)
    second = provider._starter.template
    assert second is not None
    forked = provider.start(WORK, {})
    assert psutil.Process(node(provider, forked).pid).ppid() == second.pid
    monkeypatch.setattr(starting, "LASTS", 60.0)
    os.kill(second.pid, signal.SIGKILL)
    wait_for(lambda: provider._starter.template is None, what="the end of templates")
    fresh = provider.start(WORK, {})
    assert psutil.Process(node(provider, fresh).pid).ppid() == os.getpid()
    assert [record.getMessage() for record in caplog.records] == [
        "the template has ended: another one is started, meanwhile fresh processes",
        "nodes are started as fresh processes: the template has ended",
    ]
    assert not any(psutil.pid_exists(template.pid) for template in (first, second))


def _is_ready(provider: LocalProvider) -> bool:
    template = provider._starter.template
    return template is not None and template.is_ready


def test_an_app_that_cannot_be_imported_fails_in_its_nodes_with_their_words(
    nodes: Nodes,
) -> None:
    module = nodes.project.folder / f"{nodes.project.name}.py"
    module.write_text("raise RuntimeError('no such model')")
    provider = nodes.provider(ready=False)
    name = provider.start(WORK, {})
    ended = wait_for_end(provider, name, 30.0)
    assert ended.exit_code not in (0, None)
    assert any("no such model" in line for line in ended.last_lines)


def test_the_next_provider_adopts_and_goes_on_draining(nodes: Nodes) -> None:
    first = nodes.provider()
    forked = first.start(WORK, PIN)
    # Celery has read this name when it was imported, so its value needs a fresh process.
    fresh = first.start(WORK, {"CELERY_BROKER_URL": nodes.project.broker.url})
    for name in (forked, fresh):
        nodes.wait_until_ready(name)
    nodes.project.tasks.nap.delay(60)
    wait_for(lambda: not backlog(nodes), what="the input in a node")
    first.drain(fresh)
    first.drain(forked)
    first.close()
    second = nodes.provider(drain_timeout=0.5)
    for name in (forked, fresh):
        told = node(second, name)
        assert told.adopted
        assert told.state in (ProcessState.DRAINING, ProcessState.ENDED)
    assert node(second, forked).devices == ("GPU-aaaa", "GPU-bbbb")
    wait_for(lambda: len(nodes.processes()) == 1, what="the end of the idle node")
    (busy,) = nodes.processes().values()
    second.stop(busy)
    wait_for_end(second, busy)
    assert all(told.drained for told in second.list())


def test_a_drain_that_was_marked_and_never_told_is_told_by_the_next_provider(
    nodes: Nodes,
) -> None:
    first = nodes.provider()
    name = first.start(WORK, {})
    nodes.wait_until_ready(name)
    first.close()
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + 60.0
    Records(nodes.folder / "nodes").mark_draining(name, deadline)
    second = nodes.provider()
    wait_for_end(second, name)
    assert "Warm shutdown" in nodes.log(name)


def test_a_record_of_another_process_with_its_id_is_not_adopted(nodes: Nodes) -> None:
    first = nodes.provider()
    name = first.start(WORK, {})
    nodes.wait_until_ready(name)
    pid = node(first, name).pid
    first.close()
    record = nodes.folder / "nodes" / f"{name.partition('@')[0]}.json"
    kept = record.read_text()
    # As if the id had been given away since: to this very test.
    record.write_text(kept.replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
    second = nodes.provider()
    assert not second.list()
    assert not record.exists()


def test_two_providers_never_tend_the_same_nodes(nodes: Nodes) -> None:
    first = nodes.provider(fork=False)
    with pytest.raises(FolderInUseError, match=f"process {os.getpid()}.*end that one"):
        nodes.provider(fork=False)
    first.close()
    nodes.provider(fork=False)


def test_close_leaves_no_process_behind(nodes: Nodes) -> None:
    provider = nodes.provider()
    for _ in range(3):
        provider.start(WORK, {})
    provider.close(stop_all=True)
    provider.close(stop_all=True)
    assert not nodes.leaders()
    assert not list((nodes.folder / "nodes").iterdir())


HELPER = """
import os, random, sys, time
from pathlib import Path
from tests.services.fleet import Fleet
from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.provider import LocalProvider

provider = LocalProvider(
    Command(app=sys.argv[1]), folder=Path(sys.argv[2]), fork=sys.argv[3] == "fork",
    drain_timeout=20.0,
)
template = provider._starter.template
while template is not None and not template.is_ready:
    time.sleep(0.01)
print("helper is at work", flush=True)
for number in range(int(sys.argv[4])):
    provider.start(Fleet(queue="work"), {"CUDA_VISIBLE_DEVICES": f"GPU-{number}"})
    nodes = provider.list()
    if number % 3 == 2:
        provider.drain(random.choice(nodes).name)
print("helper is done", flush=True)
time.sleep(60)
"""


def helper(nodes: Nodes, how: str, count: int) -> Process:
    script = nodes.folder.parent / "helper.py"
    script.write_text(HELPER)
    process = Process(
        [sys.executable, script, nodes.project.name, nodes.folder, how, str(count)],
        log_path=nodes.folder.parent / "helper.log",
        cwd=nodes.project.folder,
        env={**nodes.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{nodes.project.folder}"},
    )
    process.wait_for_log("helper is at work", 30.0)
    return process


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["fork", "fresh"])
def test_no_node_is_orphaned_or_doubled_whenever_the_provider_is_killed(
    nodes: Nodes, how: str
) -> None:
    for _ in range(ROUNDS):
        killed = helper(nodes, how, 6)
        time.sleep(random.uniform(0.0, 0.12))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        provider = nodes.provider(fork=False)
        known = {
            told.pid: told.name
            for told in provider.list()
            if told.state in (ProcessState.RUNNING, ProcessState.DRAINING)
        }
        names = list(known.values())
        assert len(names) == len(set(names))
        lost = {pid: name for pid, name in nodes.processes().items() if pid not in known}
        assert not lost
        provider.close(stop_all=True)
        wait_for(lambda: not nodes.processes(), what=lambda: f"the end of {nodes.processes()}")
        assert not list((nodes.folder / "nodes").iterdir())


def test_ctrl_c_and_a_closed_terminal_do_not_hit_nodes(nodes: Nodes) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        process = helper(nodes, "fork", 2)
        try:
            process.wait_for_log("helper is done")
            os.killpg(process.pid, number)
            process.wait()
        finally:
            process.kill()
        provider = nodes.provider(fork=False)
        assert len(nodes.processes()) == 2
        provider.close(stop_all=True)


def backlog(nodes: Nodes) -> int:
    return witness.backlog(nodes.project, "work")


@pytest.mark.timing
@pytest.mark.slow
def test_a_forked_node_consumes_soon_after_its_start(nodes: Nodes) -> None:
    """From ``start`` to the first line of an input that was waiting."""
    medians = {}
    for how, rounds in (("forked", 20), ("fresh", 5)):
        provider = nodes.provider(fork=how == "forked")
        delays = []
        for _ in range(rounds):
            result = nodes.project.tasks.began.delay()
            asked = time.time()
            name = provider.start(WORK, {})
            delays.append(outcome(result, 30.0) - asked)
            provider.stop(name)
            wait_for_end(provider, name)
        provider.close()
        medians[how] = statistics.median(delays)
        print(how, [round(1000 * delay) for delay in sorted(delays)], "ms")
    assert medians["forked"] < 0.15, medians
    assert medians["forked"] < medians["fresh"] / 3, medians
