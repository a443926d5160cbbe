"""The folder in which one autoscaler of one machine keeps its nodes' records and logs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery_concurrent.autoscaler.provider import ProviderError

logger = logging.getLogger(__name__)

#: Logs of ended nodes that are kept.
KEPT_LOGS = 50
_READ_BACK = 64 * 1024
_LET_GO_WITHIN = 1.0


class FolderInUseError(ProviderError):
    """Another autoscaler of this app runs on this machine, at the same broker.

    The message names its process; end that one first. Another folder is no way around: both would
    keep the same fleets, each with as many nodes as their demand asks for.
    """


def broker_of(app: Any) -> str:
    """Which broker the app reads: host, port, virtual host and the prefix of its keys there.

    No credentials, for these change while the deployment is the same.
    """
    connection = app.connection_for_read()
    told = connection.info()
    # For some transports kombu (5.7) takes the whole URL for the host.
    host = re.sub("(?<=://)[^/@]*@", "", str(told["hostname"]))
    prefix = connection.transport_options.get("global_keyprefix", "")
    return f"{host}:{told['port']}/{told['virtual_host']}#{prefix}"


def state_folder(app: str, broker: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the state of an app's autoscaler belongs on this machine.

    Below ``XDG_STATE_HOME``, or ``~/.local/state``. The host's name is part of it, because
    homes are shared among machines and process ids are not. So is the broker: nodes of another
    deployment serve another one. The working folder is not: it may change with each release,
    and the nodes of the one before are to be found.

    Args:
        app: what ``celery -A`` takes for it.
        broker: as :func:`broker_of` tells it.
        environ: where to look for the user's folder.
    """
    given = Path(environ.get("XDG_STATE_HOME", ""))
    # The specification wants relative paths ignored.
    home = given if given.is_absolute() else Path.home() / ".local" / "state"
    key = hashlib.sha256(broker.encode()).hexdigest()[:8]
    return home / "celery-concurrent" / slug(socket.gethostname()) / f"{slug(app)}-{key}"


def slug(text: str) -> str:
    """What may stand in a file's name and in a node's; never empty, never a hidden file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:64] or "x"


class Folder:
    """The folder, held by this process until it is closed or ends.

    Only its owner may enter it: the records hold environments, the logs what users print.

    Raises:
        FolderInUseError: another process holds it.
        ProviderError: it cannot be made, or belongs to somebody else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = path / "nodes"
        self.logs = path / "logs"
        try:
            for folder in (path.parent.parent, path.parent, path):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.records.mkdir(exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            if path.stat().st_uid != os.geteuid():
                raise ProviderError(f"{path} belongs to another user: choose another folder")
            path.chmod(0o700)
            self._lock = os.open(path / "autoscaler.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ProviderError(f"the state folder cannot be used: {error}") from error
        self._hold()

    def _hold(self) -> None:
        # A holder that was killed while it started a node is survived, for an instant, by a
        # child that has not yet reached its own program, and with it by the lock.
        until = time.monotonic() + _LET_GO_WITHIN
        while not self._try_hold():
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            holder = os.pread(self._lock, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise FolderInUseError(
                f"another autoscaler of this app (process {holder}) holds {self.path}: one keeps "
                "its nodes on a machine; end that one first"
            )
        # For people; on a full disk they have to look it up in /proc/locks.
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _try_hold(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def log_path(self, name: str) -> Path:
        """The log of a node, or of the template."""
        return self.logs / f"{name.partition('@')[0]}.log"

    def open_log(self, name: str) -> int:
        """A descriptor to append to; that of /dev/null when there is no room for a log."""
        try:
            return os.open(self.log_path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            logger.warning("%s runs without a log: %s", name, error)
            return os.open(os.devnull, os.O_WRONLY)

    def last_lines(self, name: str, lines: int = 20) -> tuple[str, ...]:
        """The end of a log; empty if there is none."""
        try:
            with self.log_path(name).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _READ_BACK))
                read = log.read(min(size, _READ_BACK))
        except OSError:
            return ()
        return tuple(read.decode(errors="replace").splitlines()[-lines:])

    def prune_logs(self, living: set[str]) -> None:
        """Remove the oldest logs of nodes that are no more."""
        kept = {self.log_path(name).name for name in living}
        with contextlib.suppress(OSError):
            ended = [path for path in self.logs.glob("*.log") if path.name not in kept]
            ended.sort(key=lambda path: path.lstat().st_mtime)
            for path in ended[:-KEPT_LOGS]:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it up; may be called again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
