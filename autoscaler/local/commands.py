"""The command of a node, and how a fresh process comes to run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celery_concurrent.autoscaler.provider import FleetSpec
from celery_concurrent.errors import ConfigurationError

#: Tells a process that a provider started it as this node.
NODE = "CELERY_CONCURRENT_NODE"
_SECRET_OPTIONS = ("-b", "--broker", "--result-backend")

# Runs between fork and exec, in a fresh interpreter and not in a preexec_fn: that would run in
# the fork of a process with threads. What it writes is what records.sign writes.
_SIGN = """
import os, sys
fd = int(sys.argv[1])
with open("/proc/self/stat") as file:
    text = file.read()
start = text[text.rindex(")") + 1:].split()[19]
line = b'{"pid": %d, "start": %d}\\n' % (os.getpid(), int(start))
if os.write(fd, line) != len(line):
    sys.exit("no room to sign the node's record")
os.close(fd)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How the nodes of an app are called.

    Args:
        app: what ``celery -A`` takes.
        options: further ones of ``celery worker``, the same for all nodes.
        loglevel: as ``-l`` takes it.

    Raises:
        ConfigurationError: an option would put the broker's address into the list of
            processes, for all to read.
    """

    app: str
    options: tuple[str, ...] = ()
    loglevel: str = "INFO"

    def __post_init__(self) -> None:
        for option in self.options:
            if option.partition("=")[0] in _SECRET_OPTIONS:
                raise ConfigurationError(
                    f"option {option.partition('=')[0]} must not be passed to nodes: anyone on the "
                    "machine can read a process's arguments. Set broker_url and result_backend "
                    "in the app, or CELERY_BROKER_URL and CELERY_RESULT_BACKEND."
                )

    def words(self, fleet: FleetSpec, name: str) -> list[str]:
        """The words after ``celery``.

        Raises:
            ConfigurationError: the queue's name cannot be passed to a worker.
        """
        require_passable(fleet.queue)
        return [
            *("-A", self.app, "worker", "-P", "concurrent", "-Q", fleet.queue, "-n", name),
            # Their answers and chatter grow with the fleet.
            *("--without-gossip", "--without-mingle", "-l", self.loglevel),
            *self.options,
        ]


def require_passable(queue: str) -> None:
    """Refuse a queue that cannot be named to a worker.

    Raises:
        ConfigurationError: naming the queue and the remedy.
    """
    if not queue or "," in queue:
        raise ConfigurationError(
            f"queue {queue!r} cannot have a fleet: celery worker -Q takes a comma for the end of "
            "a name. Rename the queue."
        )


def environment(environ: Mapping[str, str], name: str, env: Mapping[str, str]) -> dict[str, str]:
    """What a node finds in its environment."""
    # Celery would take SIGTERM, by which nodes are drained, for a cold stop.
    inherited = {key: value for key, value in environ.items() if key != "REMAP_SIGTERM"}
    return {**inherited, **env, NODE: name}


def start_fresh(
    words: Sequence[str],
    *,
    record: int,
    log: int,
    keep: Sequence[int],
    env: Mapping[str, str],
    cwd: Path | None,
) -> int:
    """Start ``celery`` with these words in a session of its own; it signs ``record`` first.

    It has the descriptors ``keep`` open, too, under the same numbers.

    Returns the id of the child, for the caller to wait for.

    Raises:
        OSError: there can be no more processes.
    """
    sign = [sys.executable, "-I", "-S", "-c", _SIGN, str(record)]
    process = subprocess.Popen(
        [*sign, sys.executable, "-m", "celery", *words],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(record, *keep),
        start_new_session=True,
    )
    # Waited for by its id, as all nodes are; or never, when it outlives this process.
    process.returncode = 0
    return process.pid
