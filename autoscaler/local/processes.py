"""Processes, told apart for good: by id and start time, held by a pidfd. Linux only."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Descriptors for which a low limit is raised: each node costs one here, one in the template.
MOST_DESCRIPTORS: Final = 65_536
_PROC = Path("/proc")
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A process, for as long as the machine runs.

    Args:
        pid: its id, which the kernel gives to others later.
        start: when it started, in the kernel's ticks since boot; exec does not change it.
    """

    pid: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What ``/proc/PID/stat`` says of a process."""

    identity: Identity
    state: str
    session: int

    @property
    def has_ended(self) -> bool:
        """Whether only its exit status is left."""
        return self.state in "ZX"


def allow_descriptors() -> None:
    """Let this process hold many others: raise its limit of descriptors, if that is low.

    Its children inherit that. :data:`MOST_DESCRIPTORS` at the most: some programs close, one by
    one, as many as they may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def boot() -> str:
    """Names the time since the machine was started: ids and start times hold within it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in which anything may stand, blanks and ")" too.
    state, _, _, session, *rest = text[text.rindex(")") + 1 :].split()
    return Stat(identity=Identity(pid=pid, start=int(rest[15])), state=state, session=int(session))


def session_members(leader: Identity) -> list[Identity]:
    """The processes of the session that ``leader`` made, itself left out.

    Empty when the leader's id belongs to another process by now: the kernel gives away no id
    while a session bears it, so there is no member left.
    """
    found = stat(leader.pid)
    if found is not None and found.identity != leader:
        return []
    members = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == leader.pid:
            continue
        with contextlib.suppress(OSError, ValueError):
            other = stat(int(entry.name))
            if other is not None and other.session == leader.pid and not other.has_ended:
                members.append(other.identity)
    return members


def end_session(leader: Identity) -> int:
    """Kill what a process that has ended has left of its session; returns how many that were."""
    members = session_members(leader)
    for member in members:
        handle = Handle.of(member)
        if handle is not None:
            handle.signal(signal.SIGKILL)
            handle.close()
    return len(members)


def _stat_or_close(pid: int, pidfd: int) -> Stat | None:
    try:
        return stat(pid)
    except BaseException:
        os.close(pidfd)
        raise


class Handle:
    """A hold on one process: what is asked and sent reaches it, or nobody.

    Its descriptor is readable from the moment the process has ended.
    """

    def __init__(self, identity: Identity, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd

    @classmethod
    def of(cls, identity: Identity) -> Handle | None:
        """None when the process has ended, or another one has its id.

        Raises:
            OSError: no descriptor is left to look with: nobody knows.
        """
        try:
            pidfd = os.pidfd_open(identity.pid)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise
            return None
        # In this order: what was opened cannot change any more under what is compared.
        found = _stat_or_close(identity.pid, pidfd)
        if found is None or found.identity != identity or found.has_ended:
            os.close(pidfd)
            return None
        return cls(identity, pidfd)

    @classmethod
    def of_child(cls, pid: int) -> Handle:
        """Of a child of this process that was not waited for, alive or not.

        Raises:
            OSError: no descriptor is left to hold it by.
        """
        pidfd = os.pidfd_open(pid)
        found = _stat_or_close(pid, pidfd)
        assert found is not None, "a child that was not waited for is there, if only as a zombie"
        return cls(found.identity, pidfd)

    def fileno(self) -> int:
        return self._pidfd

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens once it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """May be called again."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
