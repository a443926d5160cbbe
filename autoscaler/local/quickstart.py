"""The autoscaler's side of its template process: starting it, ordering nodes, hearing of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery_concurrent.autoscaler.local import wire
from celery_concurrent.autoscaler.local.processes import Handle, Identity

logger = logging.getLogger(__name__)

#: Seconds that a template may take to answer an order; a fork takes some milliseconds.
PATIENCE = 5.0
#: Room for a node's command in the list of processes.
_TITLE_ROOM = " " * 480


class TemplateLostError(Exception):
    """The template is gone. Whether it has made the node it was asked for, the record tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a node cannot be forked."""

    reason: str


class Quickstart:
    """Forks nodes from a template that has imported the app.

    Call from the main thread, or from one that outlives it: the kernel ends the template with
    the thread that started it.

    Args:
        app: what ``celery -A`` takes.
        env: the template's environment.
        log: a descriptor for its output.
        cwd: where the app is imported.
        on_exit: called with a node's process id and exit code when it has ended.
    """

    def __init__(
        self,
        app: str,
        *,
        env: Mapping[str, str],
        log: int,
        cwd: Path | None,
        on_exit: Callable[[int, int], None],
        patience: float = PATIENCE,
    ) -> None:
        self._on_exit = on_exit
        self._ready = False
        #: Whether it has imported the app, though it may have ended since.
        self.was_ready = False
        self._patience = patience
        self._orders, orders = wire.pair()
        self.reports, reports = wire.pair()
        self._orders.settimeout(patience)
        module = "celery_concurrent.autoscaler.local.template"
        words = [app, str(os.getpid()), str(orders.fileno()), str(reports.fileno()), _TITLE_ROOM]
        with orders, reports:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(orders.fileno(), reports.fileno()),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has imported the app, and takes orders."""
        return self._ready

    def hear(self) -> bool:
        """Take one report; False when there will be none any more."""
        received = wire.receive(self.reports)
        if received is None:
            self._ready = False
            return False
        report, _ = received
        if "ended" in report:
            self._on_exit(report["ended"], report["exit_code"])
        elif "failed" in report:
            logger.warning(
                "nodes are started as fresh processes: the app cannot be imported (%s)",
                report["failed"],
            )
        else:
            self._ready = self.was_ready = True
            logger.info("nodes are forked from process %d, which has imported the app", self.pid)
        return True

    def fork(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        gpus: float,
        *,
        record: int,
        log: int,
        locks: Mapping[str, int],
    ) -> Handle | Refusal:
        """Have a node forked: its process, which holds ``record`` and ``locks``, or why not.

        Raises:
            TemplateLostError: it did not answer, and has been ended: no node comes any more.
            OSError: there is a node, and no descriptor left to hold it by.
        """
        try:
            order = {"words": list(words), "env": dict(env), "gpus": gpus, "locks": list(locks)}
            wire.send(self._orders, order, fds=(record, log, *locks.values()))
            received = wire.receive(self._orders)
        except OSError as error:
            received, why = None, str(error)
        else:
            why = "it has ended"
        if received is None:
            self.close()
            raise TemplateLostError(why)
        return self._answer(*received)

    def _answer(self, answer: dict[str, Any], fds: list[int]) -> Handle | Refusal:
        if "refused" in answer:
            return Refusal(reason=answer["refused"])
        if not fds:  # the kernel drops what it finds no number for
            raise OSError(errno.EMFILE, "no descriptor is left to hold its process by: ulimit -n")
        identity = Identity(pid=answer["pid"], start=answer["start"])
        return Handle(identity, fds[0])

    def close(self) -> None:
        """End the template; its nodes run on. May be called again."""
        self._ready = False
        self._process.kill()
        self._process.wait()
        for end in (self._orders, self.reports):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._orders.close()
