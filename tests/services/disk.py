"""A disk that is full for some processes, anywhere and without rights: their files cannot grow."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def full_disk(pids: Iterable[int]) -> Iterator[None]:
    """Whatever these processes, and those that they start, write to a file is refused.

    The kernel says EFBIG where a full disk says ENOSPC; both are an OSError. Pipes, sockets and
    terminals are no files.
    """
    limited = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in limited.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in limited.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
