"""Whether a process may be forked into nodes, asked in that process after it has imported the app.

Each finding is a sentence for the log that ends "... so nodes are started as fresh processes".
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery_concurrent.autoscaler.local.commands import NODE
from celery_concurrent.autoscaler.provider import PIN

#: Without an initialised driver, every call but cuInit answers with this.
_NOT_INITIALIZED = 3
_SELF = Path("/proc/self")


@contextmanager
def reads_noted() -> Iterator[set[str]]:
    """Note which names of the environment are read, by Python code, in here.

    What an app has read at import it will not read again in a fork: a fork that is to have
    another value of such a name is no replacement for a fresh process.
    """
    # os._Environ encodes the name on each access, by a function that it holds (CPython 3.10
    # to 3.14); writes pass through it too, and an app that sets a name also knows it.
    environ: Any = os.environ
    names: set[str] = set()
    encode = environ.encodekey

    def noting(name: Any) -> Any:
        names.add(name)
        return encode(name)

    environ.encodekey = noting
    try:
        yield names
    finally:
        environ.encodekey = encode


def against_any_fork(own: Collection[int]) -> str | None:
    """Why this process must not be forked at all; None when it may be.

    ``own`` are the descriptors that the caller knows about, and closes in the fork.
    """
    # CUDA first: its driver starts a thread, too, which is nothing that the app could end.
    return _cuda() or _threads() or _shared_files(own)


def against_this_fork(env: Mapping[str, str], gpus: float, read: Collection[str]) -> str | None:
    """Why a node with this in its environment must be a fresh process; None when it may be forked.

    ``read`` are the names that the app's import has read, see :func:`reads_noted`.
    """
    known = sorted((set(env) - {NODE}) & set(read))
    if known:
        return f"the app reads {known[0]} when it is imported"
    if PIN in env or gpus:
        return _counted_devices(sys.modules)
    return None


def _threads() -> str | None:
    if _thread_count() > 1:
        # Libraries that know of forks end their threads before one and start them again when
        # they need them (OpenBLAS, which numpy loads): after a fork without consequences, the
        # threads that are left are those that nobody takes care of.
        _fork_for_nothing()
    count = _thread_count()
    return f"the app's import leaves {count - 1} thread(s) running" if count > 1 else None


def _thread_count() -> int:
    return sum(1 for _ in (_SELF / "task").iterdir())


def _fork_for_nothing() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _cuda() -> str | None:
    try:
        # Only if it is loaded already: loading it is what this process must not do.
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) == _NOT_INITIALIZED:
        return None
    return "the app's import initialises CUDA, which does not survive a fork"


def _shared_files(own: Collection[int]) -> str | None:
    """Sockets, pipes and event loops, which two processes cannot use at once."""
    for entry in (_SELF / "fd").iterdir():
        fd = int(entry.name)
        if fd <= 2 or fd in own:
            continue
        try:
            target = str(entry.readlink())
        except OSError:  # the listing's own descriptor
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:")):
            return f"the app's import leaves a connection or event loop open ({target})"
    return None


def _counted_devices(modules: Mapping[str, Any]) -> str | None:
    """torch and jax keep the first answer to how many devices there are."""
    torch_cuda = modules.get("torch.cuda")
    if torch_cuda is not None and getattr(torch_cuda, "_cached_device_count", None) is not None:
        return "the app's import has torch count the devices"
    bridge = modules.get("jax._src.xla_bridge")
    if bridge is not None and getattr(bridge, "_backends", None):
        return "the app's import has jax open its devices"
    return None
