"""Processes that cannot outlive the benchmark, and their memory.

Each one leads a session of its own: its whole tree can be found, measured and ended by
the session's number, whatever it forked. The kernel ends it when the benchmark dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Loaded here and not in the child: between fork and exec nothing may take a lock.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies.

    A fork does not inherit the request: forked workers call this again.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _bound_to(parent: int) -> Callable[[], None]:
    def preexec() -> None:
        die_with_parent()
        # The parent may have died before the request was made.
        if os.getppid() != parent:
            os._exit(1)

    return preexec


class Process:
    """One started program with its descendants; ``end`` leaves none of them."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_bound_to(os.getpid()),  # noqa: PLW1509 - this program has no threads
            )

    @property
    def exit_code(self) -> int | None:
        """The exit status of the leader, None while it runs."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def pids(self) -> list[int]:
        """The living processes of the tree."""
        return list(_session(self._popen.pid))

    def rss(self) -> int:
        """Resident bytes of the whole tree, shared pages counted in each process."""
        total = 0
        for pid in _session(self._popen.pid):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            except (OSError, IndexError):
                continue  # ended between the listing and the reading
        return total

    def cpu(self) -> float:
        """Seconds of processor time that the whole tree has used, ended children included."""
        ticks = 0
        for pid in _session(self._popen.pid):
            with suppress(OSError):
                fields = _fields(Path(f"/proc/{pid}/stat").read_text())
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / _TICKS

    def end(self, *, grace: float = 0.0) -> bool:
        """Ask the leader to leave, wait up to ``grace`` seconds, then end all. Idempotent.

        True when the leader had left by itself.
        """
        if grace > 0 and self.exit_code is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        left_by_itself = self.exit_code is not None
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            left = list(_session(self._popen.pid))
            for pid in left:
                _kill(pid)
            self._popen.poll()
            if not left:
                break
            time.sleep(0.01)
        return left_by_itself


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _session(leader: int) -> Iterator[int]:
    """Living processes (no zombies) of the session that ``leader`` opened."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        state, _parent, _group, session = _fields(stat)[:4]
        if int(session) == leader and state not in "ZX":
            yield int(entry.name)


def _fields(stat: str) -> list[str]:
    """The fields from the third on: the command's name may hold spaces and parentheses."""
    return stat[stat.rindex(")") + 2 :].split()
