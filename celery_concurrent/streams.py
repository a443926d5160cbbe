"""Standard streams that a full disk does not turn against their process.

A node's output goes to a file. When there is no room left, Python's own streams raise: the
banner ends the worker, a ``print`` ends an input, and the last flush spoils the exit code.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Forgiving(io.RawIOBase):
    """Writes to a descriptor; what cannot be written is lost, and nobody is told."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Buffer, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self._fd, left) :]
        return size


def forgive() -> None:
    """Have stdout and stderr of this process lose what cannot be written."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            getattr(sys, name).flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Forgiving(fd)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
