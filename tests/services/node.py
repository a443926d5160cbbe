"""A real node: ``celery -A MODULE worker`` in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.services.process import Process
from tests.services.project import Project

#: What a worker logs when its consumer runs.
READY = " ready."
#: A fleet's nodes start so; with both on, each start takes a second longer.
QUIET = ("--without-gossip", "--without-mingle")
#: Has it tell its stacks when it does not end.
_STACKS = str(Path(__file__).parent / "stacks")
_TELLING = {"PYTHONPATH": os.pathsep.join(filter(None, [_STACKS, os.environ.get("PYTHONPATH")]))}


class Node(Process):
    """A running node; ``name`` is its Celery node name.

    Its log is in a file and, by its end, in the message of a test that fails.
    """

    def __init__(
        self,
        project: Project,
        *options: str,
        name: str,
        pool: str,
        loglevel: str,
        env: Mapping[str, str] | None,
        python: str | Path = sys.executable,
    ) -> None:
        self.name = name
        super().__init__(
            [
                *(python, "-m", "celery", "-A", project.name, "worker"),
                *("-P", pool, "-l", loglevel, "-n", name, *QUIET, *options),
            ],
            log_path=project.folder / f"{name.partition('@')[0]}.log",
            cwd=project.folder,
            env={**project.environ, **_TELLING, **(env or {})},
        )

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        self.wait_for_log(READY, timeout)
