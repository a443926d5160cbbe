"""Counting the calls that a process makes, which tells of a change where time tells of noise.

Python calls its profile function for each call of a function, in Python or in C, on every thread.
That makes everything some times slower, so rates and latencies of such a process mean nothing.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any


class CallCounter:
    """A count in a mapped file, which the measuring process reads."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(fd, 8)
        finally:
            os.close(fd)
        self._cell = memoryview(self._map).cast("d")

    @classmethod
    def create(cls, path: Path) -> CallCounter:
        path.write_bytes(bytes(8))
        return cls(str(path))

    @property
    def count(self) -> float:
        return self._cell[0]

    def install(self) -> None:
        """Count from now on: the calling thread's calls, and those of threads that start later."""
        cell = self._cell

        def note(_frame: Any, event: str, _argument: Any) -> None:
            if event in {"call", "c_call"}:
                cell[0] += 1

        threading.setprofile(note)
        sys.setprofile(note)

    def close(self) -> None:
        self._cell.release()
        self._map.close()
