"""No two processes hold a device, and a device outlives no holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_concurrent.gpu.locks import (
    DeviceLock,
    DeviceTakenError,
    LockFolderError,
    LockRemovedError,
    handing,
    lock_folder,
)
from tests.services.disk import full_disk
from tests.services.load import ROUNDS
from tests.services.waiting import wait_for

UUID = "GPU-simulated-0"
OLD_MIG = "MIG-GPU-12345678-aaaa/1/0"
HOLD = """
import sys
from pathlib import Path
from celery_concurrent.gpu.locks import DeviceLock, DeviceTakenError

try:
    lock = DeviceLock.take(sys.argv[1], folder=Path(sys.argv[2]))
except DeviceTakenError as error:
    print(error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""
HANDED = """
import sys
from pathlib import Path
from celery_concurrent.gpu.locks import DeviceLock

lock = DeviceLock.handed(sys.argv[1], int(sys.argv[3]), folder=Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""
Child = subprocess.Popen[str]


@contextlib.contextmanager
def child(code: str, *words: object, descriptors: tuple[int, ...] = ()) -> Iterator[Child]:
    """A process that says what became of its lock, and ends with its stdin."""
    argv = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=descriptors
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: Child) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def free(folder: Path) -> bool:
    try:
        DeviceLock.take(UUID, folder=folder).release()
    except DeviceTakenError:
        return False
    return True


@pytest.mark.parametrize("uuid", [UUID, OLD_MIG])
def test_a_device_has_one_holder_at_a_time_and_its_pid_is_told(tmp_path: Path, uuid: str) -> None:
    with DeviceLock.take(uuid, folder=tmp_path), child(HOLD, uuid, tmp_path) as other:
        assert said(other) == (
            f"device {uuid} is taken by process {os.getpid()}: stop it, or leave it the device"
        )
    with child(HOLD, uuid, tmp_path) as other:
        assert said(other) == "held"
        with pytest.raises(DeviceTakenError) as caught:
            DeviceLock.take(uuid, folder=tmp_path)
        assert (caught.value.uuid, caught.value.pids) == (uuid, (other.pid,))


def test_other_devices_are_free(tmp_path: Path) -> None:
    with DeviceLock.take(UUID, folder=tmp_path), DeviceLock.take("GPU-b", folder=tmp_path) as b:
        assert b.held


def test_one_process_cannot_hold_a_device_twice(tmp_path: Path) -> None:
    with (
        DeviceLock.take(UUID, folder=tmp_path),
        pytest.raises(DeviceTakenError, match=f"process {os.getpid()}"),
    ):
        DeviceLock.take(UUID, folder=tmp_path)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with child(HOLD, UUID, tmp_path) as other:
        assert said(other) == "held"
        other.kill()
        other.wait()
        with DeviceLock.take(UUID, folder=tmp_path) as lock:
            assert lock.held


def test_a_lock_is_let_go_once(tmp_path: Path) -> None:
    lock = DeviceLock.take(UUID, folder=tmp_path)
    lock.release()
    with DeviceLock.take(UUID, folder=tmp_path) as next_one:
        lock.release()
        assert (lock.held, next_one.held) == (False, True)
        with pytest.raises(ValueError, match="was let go"):
            lock.fileno()


def test_a_fork_of_the_holder_does_not_hold_on(tmp_path: Path) -> None:
    lock = DeviceLock.take(UUID, folder=tmp_path)
    forked = os.fork()
    if forked == 0:
        signal.pause()
    try:
        lock.release()
        # The fork may not have come to close its copy yet.
        wait_for(lambda: free(tmp_path), what="the device, though a fork lives on")
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)


def test_a_fork_that_lets_go_leaves_the_holder_its_lock(tmp_path: Path) -> None:
    with DeviceLock.take(UUID, folder=tmp_path):
        forked = os.fork()
        if forked == 0:
            os._exit(0)
        os.waitpid(forked, 0)
        with pytest.raises(DeviceTakenError):
            DeviceLock.take(UUID, folder=tmp_path)


def test_a_lock_that_was_handed_on_outlives_its_first_holder(tmp_path: Path) -> None:
    lock = DeviceLock.take(UUID, folder=tmp_path)
    with child(HANDED, UUID, tmp_path, lock.fileno(), descriptors=(lock.fileno(),)) as node:
        assert said(node) == "held"
        lock.release()
        with pytest.raises(DeviceTakenError) as caught:
            DeviceLock.take(UUID, folder=tmp_path)
        assert caught.value.pids == tuple(sorted((os.getpid(), node.pid)))
        node.kill()
        node.wait()
        DeviceLock.take(UUID, folder=tmp_path).release()


OWNED = """
import os, sys
from pathlib import Path
from celery_concurrent.gpu.locks import DeviceLock, DeviceTakenError

try:
    lock = DeviceLock.take(sys.argv[1], owner=sys.argv[3], folder=Path(sys.argv[2]))
except DeviceTakenError as error:
    print(error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_processes_of_one_owner_hold_a_device_together_and_others_do_not(tmp_path: Path) -> None:
    with child(OWNED, UUID, tmp_path, "shop") as first:
        assert said(first) == "held"
        with child(OWNED, UUID, tmp_path, "shop") as second:
            assert said(second) == "held"
            with child(OWNED, UUID, tmp_path, "other") as other:
                pids = ", ".join(map(str, sorted([first.pid, second.pid])))
                assert said(other).startswith(
                    f"device {UUID} is taken by processes {pids} of shop:"
                )
            with pytest.raises(DeviceTakenError):
                DeviceLock.take(UUID, folder=tmp_path)
            first.kill()
            first.wait()
            with pytest.raises(DeviceTakenError, match=f"process {second.pid} of shop"):
                DeviceLock.take(UUID, owner="other", folder=tmp_path)
    with DeviceLock.take(UUID, owner="other", folder=tmp_path) as lock:
        assert lock.held


def test_on_a_full_disk_a_device_is_held_by_one_process_alone(tmp_path: Path) -> None:
    with full_disk([os.getpid()]):
        lock = DeviceLock.take(UUID, owner="shop", folder=tmp_path)
        with lock, pytest.raises(DeviceTakenError):
            DeviceLock.take(UUID, owner="shop", folder=tmp_path)
    assert free(tmp_path)


def test_of_many_owners_that_come_at_once_one_gets_the_device(tmp_path: Path) -> None:
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            owners = ["shop", "shop", "other", "third"]
            racing = [stack.enter_context(child(OWNED, UUID, tmp_path, who)) for who in owners]
            heard = [said(one) for one in racing]
            winners = {who for who, what in zip(owners, heard, strict=True) if what == "held"}
            assert len(winners) == 1, heard


def test_what_a_process_was_handed_it_holds_and_what_is_no_lock_it_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = """
import sys
from celery_concurrent.gpu.locks import keep_handed
keep_handed()
keep_handed()
print("held", flush=True)
sys.stdin.read()
"""
    lock = DeviceLock.take(UUID, owner="shop")
    told = handing({UUID: lock.fileno(), "GPU-b": 0, "GPU-c": 999})
    monkeypatch.setenv(*told.popitem())
    with child(code, descriptors=(lock.fileno(),)) as node:
        assert said(node) == "held"
        lock.release()
        with pytest.raises(DeviceTakenError) as caught:
            DeviceLock.take(UUID)
        assert caught.value.pids == tuple(sorted((os.getpid(), node.pid)))
        assert caught.value.owner == "shop"
    DeviceLock.take(UUID).release()


def test_cleaners_of_temporary_folders_see_that_the_locks_are_in_use(tmp_path: Path) -> None:
    """As systemd-tmpfiles looks: it leaves a folder whose lock it does not get."""
    folder = os.open(tmp_path, os.O_RDONLY)
    with DeviceLock.take(UUID, folder=tmp_path), pytest.raises(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(folder)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_whose_file_is_not_the_one_at_its_path_is_told(
    tmp_path: Path, replaced: bool
) -> None:
    with DeviceLock.take(UUID, folder=tmp_path) as lock:
        lock.check()
        (path,) = tmp_path.iterdir()
        path.unlink()
        if replaced:
            path.touch()
        with pytest.raises(LockRemovedError, match=f"no longer at {path}"):
            lock.check()


def test_the_locks_lie_in_a_temporary_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = lock_folder({})
    assert folder == tmp_path / f"celery-concurrent-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert lock_folder({"TMPDIR": str(tmp_path)}) == folder


def test_the_locks_do_not_lie_in_what_goes_at_logout(tmp_path: Path) -> None:
    there = {"TMPDIR": str(tmp_path / "tmp"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert lock_folder(there).is_relative_to(tmp_path / "tmp")


@pytest.mark.parametrize("kind", ["link", "open to others", "file"])
def test_a_folder_that_others_could_have_made_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / f"celery-concurrent-{os.getuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(LockFolderError, match=r"must be a folder of this user alone.*remove it"):
        lock_folder({"TMPDIR": str(tmp_path)})
