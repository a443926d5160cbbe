"""A process with its children and its log, ended with the test run whatever happens to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from celery_concurrent.embedded import start_tied, tail
from tests.services.waiting import wait_for


class Process:
    """A process in a session and group of its own, its output in the file ``log_path``.

    It ends with :meth:`kill`, and by the kernel's promise when the test run is killed (see
    ``start_tied``: start it from the main thread).
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log_path = log_path
        # Below nohup a process would be born deaf to SIGHUP.
        place = [] if cwd is None else ["-C", str(cwd)]
        words = [program("env"), "--default-signal=HUP", *place, *map(str, argv)]
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            self._popen = start_tied(words, log=log, env=env)

    @property
    def pid(self) -> int:
        """The process's id, which is its group's id, too."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def signal(self, number: int) -> None:
        """Signal the process alone, as a supervisor would. Nothing happens once it has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        """The exit code. AssertionError with the log's end if it still runs after ``timeout``."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGURG)  # a node tells its stacks, see stacks/sitecustomize.py
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(1.0)
            raise AssertionError(
                f"process {self.pid} still runs after {timeout} s; {self.log_tail(300)}"
            ) from None

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, then the exit code, as in :meth:`wait`."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL for the whole group, children that outlived it included. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def log(self) -> str:
        """Its output so far."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        """The log's last lines under a heading, for messages of failure."""
        return f"the end of {self.log_path.name}:\n{tail(self.log_path, lines)}"

    def wait_for_log(self, text: str, timeout: float = 10.0) -> None:
        """Return when the log holds ``text``.

        Raises:
            AssertionError: it ended, or ``timeout`` seconds passed, without it.
        """

        def told() -> bool:
            # Asked before the log is read, for its last words count.
            ended = not self.running
            if text in self.log():
                return True
            if ended:
                raise AssertionError(
                    f"process {self.pid} ended with {self.returncode} before it logged "
                    f"{text!r}; {self.log_tail()}"
                )
            return False

        wait_for(told, timeout, what=lambda: f"{text!r} in the log ({self.log_tail()})")


def program(name: str) -> str:
    """The path of a program of this environment or of the system. LookupError if there is none."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise LookupError(f"there is no program {name!r} on the PATH")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago: be ready to try another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
