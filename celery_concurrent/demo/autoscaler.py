"""The demo's autoscaler: ``celery autoscaler --simulate-gpus`` in a process of its own.

What always holds: nothing of it outlives the demo, however that ends. The kernel kills the
autoscaler with the demo, and the template with the autoscaler; nodes kill themselves when the
demo's lock on the leash is gone. In order: the autoscaler drains its nodes and leaves, then the
leash is let go of, then a look whether nodes were left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.folder import broker_of, state_folder
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.demo.app import LEASH_VARIABLE, MAX_NODES, app
from celery_concurrent.demo.errors import AutoscalerEndedError
from celery_concurrent.embedded import end, start_tied, tail

APP = "celery_concurrent.demo.app"
# Nodes that drain keep their devices: with none to spare, others would have to wait for these.
GPUS = MAX_NODES + 2
_LEAVE_WITHIN = 20.0
_DRAIN_WITHIN = 1.0
_LEAVE_AT_ONCE_WITHIN = 5.0


class AutoscalerProcess:
    """The autoscaler, from the construction until :meth:`leave` or :meth:`stop`.

    Args:
        folder: where its state, locks and logs go.
    """

    def __init__(self, folder: Path) -> None:
        leash = folder / "leash"
        self._leash = os.open(leash, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._leash, fcntl.LOCK_EX)
        self._log = folder / "autoscaler.log"
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        # Of its own, so that two demos share neither nodes nor devices.
        self._environ = {
            **os.environ,
            LEASH_VARIABLE: str(leash),
            "XDG_STATE_HOME": str(folder / "state"),
            "TMPDIR": str(runtime),
        }
        argv = [sys.executable, "-m", "celery", "-A", APP, "autoscaler"]
        with self._log.open("wb") as output:
            self._process: subprocess.Popen[bytes] = start_tied(
                [*argv, "--simulate-gpus", str(GPUS)], log=output, env=self._environ
            )

    def check(self) -> None:
        """Raise :class:`AutoscalerEndedError` if it is gone."""
        status = self._process.poll()
        if status is not None:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise AutoscalerEndedError(
                f"the autoscaler ended {how}; its log ends with:\n{tail(self._log, 20)}"
            )

    def leave(self) -> int:
        """Have it drain its nodes and leave; its exit status: 0 in order, -9 killed."""
        end(self._process, patience=_LEAVE_WITHIN)
        self.stop()
        return self._process.returncode

    def stop(self) -> None:
        """End it and its nodes now. May be called again."""
        if self._process.poll() is None:
            # The second signal is the one that says "at once"; two in a row may arrive as one.
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DRAIN_WITHIN)
            end(self._process, patience=_LEAVE_AT_ONCE_WITHIN)
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
            if self._process.returncode != 0:
                self._await_nodes()

    def _await_nodes(self) -> None:
        """Nodes that the autoscaler has left end by themselves by now: see them go."""
        folder = state_folder(APP, broker_of(app), self._environ)
        left = LocalProvider(
            Command(app=APP), folder=folder, fork=False, drain_timeout=_LEAVE_AT_ONCE_WITHIN
        )
        left.close(stop_all=True)
