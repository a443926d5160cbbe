"""A real autoscaler: ``celery -A MODULE autoscaler`` in a process of its own, and its nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from celery_concurrent.autoscaler import mailbox
from tests.services.process import Process
from tests.services.project import Project
from tests.services.waiting import wait_for

_numbers = count(1)
_LINE = re.compile(r"^\[(?P<at>[\d: ,-]+): \w+/MainProcess\] node (?P<node>\S+) (?P<what>.*)$")


@dataclass(slots=True, kw_only=True)
class Life:
    """What an autoscaler logged of one node; times in seconds since the epoch.

    Args:
        pid: its process.
        drained_at: when it was told to drain, None if it was not.
        ended: how it ended, ``exit_code=0 was=draining``; None if it has not.
    """

    pid: int
    drained_at: float | None = None
    ended: str | None = None


class Fleets(Process):
    """A running autoscaler; its state folder lies in the project's folder.

    Its nodes are no children of the test's: they are known by a word in their environment.
    """

    def __init__(
        self, project: Project, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._project = project
        super().__init__(
            [sys.executable, "-m", "celery", "-A", project.name, "autoscaler", *options],
            log_path=project.folder / f"autoscaler-{next(_numbers)}.log",
            cwd=project.folder,
            env={**fleet_environ(project), **(env or {})},
        )

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        self.wait_for_log("autoscaler keeps", timeout)

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``celery -A MODULE fleet ...``."""
        return fleet_command(self._project, *words, check=check)

    def status(self, queue: str) -> dict[str, Any]:
        """One fleet's status."""
        return fleet_status(self._project, queue)

    def wait_for_status(
        self, queue: str, holds: Callable[[dict[str, Any]], bool], timeout: float = 30.0
    ) -> dict[str, Any]:
        """The first status for which ``holds`` is true."""
        return wait_for_status(self._project, queue, holds, timeout, told=self.log_tail)

    def lives(self) -> dict[str, Life]:
        """What its log tells of each node, by name."""
        lives: dict[str, Life] = {}
        for found in map(_LINE.match, self.log().splitlines()):
            if found is None:
                continue
            node, what = found["node"], found["what"]
            pid = re.search(r" pid=(\d+)", what)
            if pid is not None:
                lives[node] = Life(pid=int(pid[1]))
            elif what.startswith("drains"):
                at = datetime.strptime(found["at"], "%Y-%m-%d %H:%M:%S,%f")
                lives[node].drained_at = at.timestamp()
            elif what.startswith("ended"):
                lives[node].ended = what.removeprefix("ended ")
        return lives

    def nodes(self) -> list[int]:
        """The pids of all living processes of this project's nodes, templates included."""
        return nodes_of(self._project)


def waiting_source(scaling: str, *, queue: str = "q", prints: int = 0) -> str:
    """An app whose ``wait(flag)`` runs, one input per node, until the flag is there.

    Args:
        scaling: the parameters of ``@scaling``.
        queue: of the task.
        prints: characters that each input prints.
    """
    return f"""
        import time
        from pathlib import Path

        from celery import Celery
        from celery_concurrent import concurrent, scaling

        app = Celery()

        @app.task(queue="{queue}")
        @scaling({scaling})
        @concurrent(max_inputs=1)
        def wait(flag):
            print("x" * {prints})
            while not Path(flag).exists():
                time.sleep(0.05)
            return "done"
    """


def fleet_environ(project: Project) -> dict[str, str]:
    """A project's environment, with folders of its own for state and for device locks."""
    folders = {"XDG_STATE_HOME": "state", "TMPDIR": "run"}
    own = {name: str(project.folder / folder) for name, folder in folders.items()}
    return {**project.environ, **own}


def fleet_status(project: Project, queue: str) -> dict[str, Any]:
    """One fleet: what ``fleet status --json`` shows, without a process for it."""
    # Its mailbox opens a moment after the autoscaler has said that it is there.
    answers = wait_for(
        lambda: mailbox.ask(project.app, "status"), what="an answer of the autoscaler"
    )
    found: dict[str, Any] = next(f for f in answers[0]["fleets"] if f["queue"] == queue)
    return found


def wait_for_status(
    project: Project,
    queue: str,
    holds: Callable[[dict[str, Any]], bool],
    timeout: float = 30.0,
    *,
    told: Callable[[], str] = str,
) -> dict[str, Any]:
    """The first status for which ``holds`` is true; ``told`` has the autoscaler's last words."""
    seen: dict[str, Any] = {}

    def look() -> bool:
        seen.clear()
        seen.update(fleet_status(project, queue))
        return holds(seen)

    wait_for(look, timeout, what=lambda: f"a status; the last: {seen}; {told()}")
    return seen


def fleet_command(
    project: Project, *words: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """``celery -A MODULE fleet ...``, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", project.name, "fleet", *words],
        cwd=project.folder,
        env=fleet_environ(project),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"fleet {' '.join(words)}: {done.stdout}{done.stderr}")
    return done


def nodes_of(project: Project) -> list[int]:
    """The living processes of this project's nodes, templates and nodes to be included."""
    return [
        pid
        for pid, words in _living(project).items()
        if not {b"autoscaler", b"fleet"} & set(words.split(b"\0"))
    ]


def workers_of(project: Project) -> list[int]:
    """The living processes of this project's nodes, each once it has become one."""
    return [pid for pid, words in _living(project).items() if b"worker" in words.split(b"\0")]


def _living(project: Project) -> dict[int, bytes]:
    """The words of every living process whose environment names this project's state folder."""
    mark = f"XDG_STATE_HOME={project.folder / 'state'}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if words and mark in (entry / "environ").read_bytes():
                found[int(entry.name)] = words
    return found


def end_nodes(project: Project) -> None:
    """Kill what is left of a project's fleets."""
    for pid in nodes_of(project):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
