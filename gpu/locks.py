"""A lock per device, so that two autoscalers of a host never pin the same one.

The lock is the kernel's (``flock``): it goes with the last process that has its descriptor
open, however that ends. An autoscaler hands it to the nodes that it pins to the device, so that
nodes that outlive it keep the device; they share it with the next autoscaler of the same owner.

The file's first line is the owner, the others are pids of holders, for people. It stays when the
lock is let go, for removing a file that another process is about to lock would give them a lock
each.

The files lie in a folder of this user: autoscalers that run as different users, or with another
TMPDIR, do not see each other's locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from celery_concurrent.errors import ConcurrencyError

if TYPE_CHECKING:
    from typing_extensions import Self

#: In a node's environment: the locks that it was handed, as JSON, descriptors by UUID.
HANDED = "CELERY_CONCURRENT_DEVICE_LOCKS"
_NAME = "celery-concurrent"
# Bytes of a lock's file from which on no more holders are noted.
_MOST_TOLD = 32 * 1024


class DeviceTakenError(ConcurrencyError, RuntimeError):
    """Others hold the device; ``pids`` are those of them that live and told, ``owner`` is whose.

    Stop them (``celery -A app fleet drain --all``), or leave the device to them.
    """

    def __init__(self, uuid: str, pids: Sequence[int], owner: str) -> None:
        told = ", ".join(map(str, pids))
        by = f"process {told}" if len(pids) == 1 else f"processes {told}"
        of = f" of {owner}" if owner else ""
        super().__init__(
            f"device {uuid} is taken by {by if pids else 'another process'}{of}: "
            "stop it, or leave it the device"
        )
        self.uuid = uuid
        self.pids = tuple(pids)
        self.owner = owner


class LockFolderError(ConcurrencyError, RuntimeError):
    """The folder for locks is not this user's alone, so others could hold them all.

    Remove it, or set TMPDIR to a folder of your own.
    """


class LockRemovedError(ConcurrencyError, RuntimeError):
    """The file of a lock that is held was removed, so others can lock the device, too.

    Drain the nodes on it: once the last one has ended, the device can be locked anew.
    """

    def __init__(self, uuid: str, path: Path) -> None:
        super().__init__(
            f"device {uuid} is held by a lock that is no longer at {path}, so others can have it, "
            "too: drain the nodes on it, then it is locked anew"
        )


class DeviceLock:
    """One device, held until :meth:`release` or the end of the process; a context manager.

    A fork of this process lets go of it at once, so that it does not outlive the holder there.
    To hand it to a node that is to keep the device without us, pass ``fileno()`` on
    (``pass_fds``, ``socket.send_fds``), and call :meth:`handed` in the node.
    """

    def __init__(self, uuid: str, descriptor: int, folder: Path) -> None:
        """Use :meth:`take` or :meth:`handed`: this expects a descriptor that is locked."""
        self.uuid = uuid
        self._path = _path(folder, uuid)
        self._descriptor: int | None = descriptor
        # Cleaners of temporary folders (systemd-tmpfiles) leave a folder alone whose lock is
        # held. They would take an old lock's file for garbage, and the next one to come
        # would get a lock of its own.
        self._folder: int | None = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._folder, fcntl.LOCK_SH)
        _sign(descriptor)
        _held.add(self)

    @classmethod
    def take(cls, uuid: str, *, owner: str = "", folder: Path | None = None) -> Self:
        """Hold the device from now on.

        Args:
            owner: who may hold it together: processes that give the same one. They see to it
                themselves that they do not get in each other's way. "" shares it with nobody.
            folder: where the locks lie; the user's own, see :func:`lock_folder`, if None.

        Raises:
            DeviceTakenError: somebody else holds it; without an owner, maybe this process.
            LockFolderError: the folder cannot be trusted.
        """
        place = lock_folder() if folder is None else folder
        name = " ".join(owner.splitlines())
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(_path(place, uuid), flags, 0o600)
        try:
            if not (_take_alone(descriptor, name) or _join(descriptor, name)):
                holders, whose = _told(descriptor)
                raise DeviceTakenError(uuid, holders, whose)
            return cls(uuid, descriptor, place)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def handed(cls, uuid: str, descriptor: int, *, folder: Path | None = None) -> Self:
        """Go on with a lock that another process took: this one is a holder from now on.

        Its descriptor belongs to the lock and is not passed on to further programs.
        """
        os.set_inheritable(descriptor, False)
        return cls(uuid, descriptor, lock_folder() if folder is None else folder)

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def fileno(self) -> int:
        """The descriptor: while any process has it open, the device is taken.

        Raises:
            ValueError: it was let go.
        """
        if self._descriptor is None:
            raise ValueError(f"the lock of device {self.uuid} was let go")
        return self._descriptor

    def check(self) -> None:
        """See that the lock is where others look for it.

        Raises:
            LockRemovedError: its file was removed, or replaced.
            ValueError: it was let go.
        """
        held = os.fstat(self.fileno())
        try:
            if os.path.samestat(held, self._path.stat()):
                return
        except OSError as error:
            raise LockRemovedError(self.uuid, self._path) from error
        raise LockRemovedError(self.uuid, self._path)

    def release(self) -> None:
        """Let go of it; whoever was handed it still holds it. Idempotent."""
        # Closed and never unlocked: an unlock would reach those who share the descriptor.
        descriptors, self._descriptor, self._folder = (self._descriptor, self._folder), None, None
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)
        _held.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


# Whatever became of the objects: a lock that nobody refers to any more is still held.
_held: set[DeviceLock] = set()


def _release_in_fork() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_fork)


def handing(descriptors: Mapping[str, int]) -> dict[str, str]:
    """What tells a process in its environment that it has these locks, by UUID, open."""
    return {HANDED: json.dumps(dict(descriptors))} if descriptors else {}


def keep_handed(environ: MutableMapping[str, str] = os.environ) -> None:
    """Hold what this process was handed until it ends; the second time there is nothing.

    What is no lock is left alone: a program of the node's may see the names and has not the files.
    """
    descriptors: dict[str, int] = json.loads(environ.pop(HANDED, "{}"))
    folder = lock_folder() if descriptors else None
    for uuid, descriptor in descriptors.items():
        assert folder is not None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), _path(folder, uuid).stat()):
                DeviceLock.handed(uuid, descriptor, folder=folder)


def lock_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """This user's folder for locks, made if it is not there.

    In the temporary folder, with the user's number in its name. Not in XDG_RUNTIME_DIR: that is
    removed at the user's last logout, which autoscalers and nodes may outlive.

    Raises:
        LockFolderError: it is no folder, a link, or not of this user alone.
    """
    temporary = environ.get("TMPDIR") or tempfile.gettempdir()
    base = Path(temporary) / f"{_NAME}-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700, parents=True)
    seen = base.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise LockFolderError(
            f"{base} must be a folder of this user alone (mode 0700), for others could hold the "
            "locks in it: remove it, or set TMPDIR to a folder of your own"
        )
    return base


def _path(folder: Path, uuid: str) -> Path:
    # Older MIG names hold slashes.
    return folder / f"{quote(uuid, safe='')}.lock"


def _take_alone(descriptor: int, owner: str) -> bool:
    """Take what nobody holds, and leave it open to those of the same owner.

    The owner is written while the lock is exclusive, so it stands for as long as anybody
    shares the lock: nobody can get an exclusive one meanwhile.
    """
    if not _flock(descriptor, fcntl.LOCK_EX):
        return False
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{owner}\n".encode())
    except OSError:  # a full disk: nobody can learn whose it is, so it is shared with nobody
        return True
    # From an exclusive to a shared lock is two steps of the kernel's, and another one may come
    # between them. It has written itself as the owner then.
    return not owner or _join(descriptor, owner)


def _join(descriptor: int, owner: str) -> bool:
    """Share what processes of this owner hold."""
    # In this order: once it is shared, the owner cannot change any more.
    return bool(owner) and _flock(descriptor, fcntl.LOCK_SH) and _told(descriptor)[1] == owner


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Add this process to those that hold it, for people; a full disk is no reason to fail."""
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_size < _MOST_TOLD:
            os.write(descriptor, f"{os.getpid()}\n".encode())


def _told(descriptor: int) -> tuple[list[int], str]:
    """The processes that hold it and live, and whose they are."""
    owner, *pids = os.pread(descriptor, 2 * _MOST_TOLD, 0).decode(errors="replace").split("\n")
    return sorted({int(pid) for pid in pids if pid.isdecimal() and _lives(int(pid))}), owner


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
