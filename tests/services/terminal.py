"""A program in a terminal of its own, as a person starts it: it hears keys and a closed window."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.services.waiting import wait_for

CTRL_C = "\x03"
SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"
#: Makes the terminal that is stdin the session's own, so that its keys become signals; also where
#: the tests themselves run below nohup.
_OWN = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Runs ``argv`` in a window of 30 lines until that is closed; what it shows is kept."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.settings = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _OWN, *argv],
            cwd=cwd,
            env={**env, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = bytearray()
        self._bell, self._ringer = os.pipe()
        # A window that nobody reads fills up, and stops who writes to it.
        self._thread = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> str:
        """Everything so far, control sequences included."""
        return self._shown.decode(errors="replace")

    def wait_for(self, text: str, timeout: float = 20.0, *, after: int = 0) -> None:
        """Return when it shows this, ``after`` so much of what is shown."""
        wait_for(
            lambda: text in self.shown[after:], timeout, what=lambda: f"{text!r} in {self.shown}"
        )

    def type(self, keys: str) -> None:
        """Press these keys; :data:`CTRL_C` is one."""
        os.write(self._ours, keys.encode())

    def settings_now(self) -> list[Any]:
        """How the terminal is set: echo, line mode and the like."""
        return termios.tcgetattr(self._ours)

    def wait(self, timeout: float = 30.0) -> int:
        """The exit code."""
        return self.process.wait(timeout)

    def close(self) -> None:
        """Close the window. Idempotent."""
        if self._ours < 0:
            return
        os.write(self._ringer, b"\0")
        self._thread.join()
        for descriptor in (self._ours, self._bell, self._ringer):
            os.close(descriptor)
        self._ours = -1

    def kill(self) -> None:
        """Close the window, and end what did not end with it."""
        self.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        # EIO: nobody has the other side open any more.
        with suppress(OSError):
            while True:
                readable, _, _ = select.select([self._ours, self._bell], [], [])
                if self._bell in readable:
                    return
                self._shown += os.read(self._ours, 65536)
