"""The records of nodes: files that tell the next autoscaler what the last one has started.

``NAME.json`` has two lines. The first is written by the autoscaler before there is a process,
the second by the process itself: its id and start time. The invariants stand in the package's
docstring. ``NAME.drain`` is the mark of a node that was told to drain.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from celery_concurrent.autoscaler.local.processes import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a node.

    Args:
        name: Celery's node name.
        queue: what it consumes.
        boot: the machine's boot in which it was started.
        env: what was added to its environment.
        process: None until it has written that itself.
    """

    name: str
    queue: str
    boot: str
    env: Mapping[str, str] = field(default_factory=dict)
    process: Identity | None = None


class Records:
    """The records in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, record: Record) -> int:
        """Write a record and return its open, locked file: the new process is to inherit it.

        The caller closes its own copy once that process is there.

        Raises:
            OSError: there is no room; nothing is left of it.
        """
        path = self._path(record.name)
        made = path.with_suffix(".new")
        fd = os.open(made, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = asdict(record)
            del first["process"]
            _write(fd, first)
            # Locked before it appears under its name: it never passes for a dead one's.
            made.rename(path)
        except BaseException:
            os.close(fd)
            made.unlink(missing_ok=True)
            raise
        return fd

    def all(self) -> Iterator[Record]:
        """Those that can be read; what a crash of the machine left in pieces is removed."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = _read(path)
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                # An autoscaler writes the whole first line before the file gets this name.
                path.unlink(missing_ok=True)
                continue
            yield record

    def is_locked(self, name: str) -> bool:
        """Whether a process holds it that has not yet written who it is."""
        try:
            fd = os.open(self._path(name), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two that look at once do not take each other for the holder.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def get(self, name: str) -> Record | None:
        """None if there is none.

        Raises:
            OSError: it cannot be read: nobody knows.
        """
        try:
            return _read(self._path(name))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def mark_draining(self, name: str, deadline: float) -> None:
        """Note that a node drains until ``deadline``, in seconds since boot, sleep included.

        Raises:
            OSError: there is no room.
        """
        mark = self._path(name).with_suffix(".drain")
        made = mark.with_suffix(".drain-new")
        made.write_text(repr(deadline))
        made.replace(mark)

    def draining_until(self, name: str) -> float | None:
        """The deadline of a node that was told to drain; None if it was not."""
        try:
            return float(self._path(name).with_suffix(".drain").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return 0.0  # marked, and nobody knows for how long

    def remove(self, name: str) -> None:
        """Forget a node whose process is gone."""
        path = self._path(name)
        # The record last: a mark without one would never be removed.
        for found in (path.with_suffix(".drain-new"), path.with_suffix(".drain"), path):
            with contextlib.suppress(OSError):
                found.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what writers that were killed have left half done."""
        for path in self._folder.glob("*.new"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.partition('@')[0]}.json"


def sign(fd: int, identity: Identity) -> None:
    """Write into a record who its process is, and give the lock back: in this order.

    Raises:
        OSError: there is no room; a process that cannot sign must not live.
    """
    _write(fd, asdict(identity))
    os.close(fd)


def _write(fd: int, what: Mapping[str, object]) -> None:
    line = f"{json.dumps(what)}\n".encode()
    # One write: a reader sees all of the line or none of it, or else a line without its end.
    if os.write(fd, line) != len(line):
        raise OSError(f"no room for a record of {len(line)} bytes")


def _read(path: Path) -> Record:
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    first = json.loads(lines[0]) if lines else {}
    process = Identity(**json.loads(lines[1])) if len(lines) > 1 else None
    return Record(**first, process=process)
