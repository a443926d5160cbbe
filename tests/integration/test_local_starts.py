"""Local nodes whose start fails though there is a process: found, and made to leave."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from celery_concurrent.autoscaler.local import starting
from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.folder import Folder
from celery_concurrent.autoscaler.local.processes import (
    MOST_DESCRIPTORS,
    Handle,
    Identity,
    allow_descriptors,
    boot,
)
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.autoscaler.local.quickstart import TemplateLostError
from celery_concurrent.autoscaler.local.records import Record, Records
from celery_concurrent.autoscaler.provider import PIN, NodeStartError, ProcessState
from tests.services.fleet import Fleet
from tests.services.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfd")

#: Signs its record as a fork does, once the file that it is told of is there.
SIGNS_LATE = """
import os, sys, time
from celery_concurrent.autoscaler.local.processes import stat
from celery_concurrent.autoscaler.local.records import sign

while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
sign(int(sys.argv[1]), stat(os.getpid()).identity)
time.sleep(60)
"""


class SlowTemplate:
    """Makes a node, and then does not answer in time."""

    is_ready = True

    def __init__(self, go: Path) -> None:
        self._go = go
        self.children: list[subprocess.Popen[bytes]] = []

    def fork(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        gpus: float,
        *,
        record: int,
        log: int,
        locks: Mapping[str, int],
    ) -> Handle:
        child = [sys.executable, "-c", SIGNS_LATE, str(record), str(self._go)]
        self.children.append(subprocess.Popen(child, pass_fds=(record,)))
        raise TemplateLostError("timed out")


class World:
    """A provider whose template is slow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.go = folder / "go"
        self.provider = LocalProvider(
            Command(app="shop"), folder=self.folder, fork=False, environ=os.environ
        )
        self.template = SlowTemplate(self.go)
        self.provider._starter.template = self.template  # type: ignore[assignment]  # a fake

    def start(self) -> None:
        with pytest.raises(NodeStartError, match="does not say who it is"):
            self.provider.start(Fleet(queue="q"), {PIN: "GPU-a"})
        self.provider._starter.template = None

    @property
    def records(self) -> list[str]:
        return sorted(path.suffix for path in (self.folder / "nodes").iterdir())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(starting, "SIGN_WITHIN", 0.1)
    world = World(tmp_path)
    yield world
    for child in world.template.children:
        child.kill()
        child.wait()
    world.provider.close()


def test_a_process_that_signs_too_late_is_kept_on_record_and_made_to_leave(world: World) -> None:
    world.start()
    (node,) = world.provider.list()
    assert (node.state, node.drained, node.devices) == (ProcessState.PENDING, True, ("GPU-a",))
    assert world.records == [".drain", ".json"]
    world.go.touch()
    wait_for(lambda: not world.provider.list()[0].lives, what="its end")
    (node,) = world.provider.list()
    (child,) = world.template.children
    assert (node.pid, node.drained, node.adopted) == (child.pid, True, False)
    assert world.records == []


def test_a_drain_for_whose_mark_there_was_no_room_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, deadline: float) -> None:
        raise OSError("no room")

    monkeypatch.setattr(world.provider._records, "mark_draining", full)
    world.start()
    world.go.touch()
    wait_for(lambda: not world.provider.list()[0].lives, what="its end")


def test_a_process_that_ends_before_it_has_signed_is_forgotten(world: World) -> None:
    world.start()
    (child,) = world.template.children
    child.kill()
    wait_for(lambda: not world.provider.list(), what="no node")
    assert world.records == []
    world.provider.close(stop_all=True)


def test_a_process_that_ends_unsigned_while_it_is_adopted_is_forgotten(tmp_path: Path) -> None:
    kept = Folder(tmp_path / "state")
    late = Record(name="q-1@here", queue="q", boot=boot(), env={})
    record = Records(kept.records).create(late)
    child = subprocess.Popen(["sleep", "0.2"], pass_fds=[record])
    os.close(record)
    kept.close()
    provider = LocalProvider(Command(app="shop"), folder=kept.path, fork=False)
    assert provider.list() == []
    provider.close()
    child.wait()


def test_the_end_waits_for_a_process_that_has_not_signed(world: World) -> None:
    world.start()
    world.go.touch()
    world.provider.close(stop_all=True)
    assert world.records == []


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 4096), [(4096, 4096)]),
        ((1024, 1 << 30), [(MOST_DESCRIPTORS, 1 << 30)]),
        ((1024, resource.RLIM_INFINITY), [(MOST_DESCRIPTORS, resource.RLIM_INFINITY)]),
        ((1 << 20, 1 << 20), []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
    ],
)
def test_a_low_limit_of_descriptors_is_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: list[tuple[int, int]]
) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: said.append(limits))
    allow_descriptors()
    assert said == raised


def test_where_no_descriptor_is_left_a_process_does_not_pass_for_an_ended_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        Handle.of(Identity(pid=os.getpid(), start=0))
