"""A RabbitMQ server of one's own, beside any other on the machine."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

from tests.services.needs import missing
from tests.services.process import Process, free_port

# Debian's /usr/sbin/rabbitmq-server is a wrapper that insists on its own user, so it is the
# last of the places to look at.
_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
_READY = "completed with"
_TRIES = 3


class RabbitMQServer:
    """A server whose node, ports, cookie and data are its own and stay so over restarts.

    Durable queues, classic and quorum, survive :meth:`restart` and :meth:`kill`. A start
    takes some five seconds, a stop some three.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scripts = scripts()
        self._epmd: Process | None = None
        self._process: Process | None = None
        self._env: dict[str, str] = {}
        self._port: int | None = None
        self._vhosts = itertools.count(1)

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

    def url(self, vhost: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{'' if vhost == '/' else vhost}"

    def fresh_vhost(self) -> str:
        """Make a virtual host that nobody was given before; returns its name."""
        name = f"test{next(self._vhosts)}"
        # One call instead of two (add_vhost, set_permissions), each a start of Erlang.
        self.ctl(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"test">>).',
        )
        return name

    def ctl(self, *words: str) -> str:
        """Run ``rabbitmqctl`` against this server; returns what it printed.

        Raises:
            AssertionError: it failed; the message holds its output.
        """
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", "--quiet", *words],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {words[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Start it, if it does not run, and return when it takes connections."""
        if self.running:
            return
        # Only ports that were never told to anyone may change.
        tries = 1 if self._port is not None else _TRIES
        for left in reversed(range(tries)):
            port = self._port if self._port is not None else free_port()
            try:
                self._start(port)
            except AssertionError:
                self.kill()
                if left == 0:
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Stop it in its own time. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop(timeout=60.0)

    def kill(self) -> None:
        """SIGKILL. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def end(self) -> None:
        """Kill it, and Erlang's port mapper with it: it cannot be started again."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()

    def _start(self, port: int) -> None:
        if self._port is None:
            self._env = self._environment(port)
        if self._epmd is None or not self._epmd.running:
            # Started here, and in the foreground: the one that Erlang starts by itself is a
            # daemon that nobody ends.
            mapper = self._env["ERL_EPMD_PORT"]
            self._epmd = Process(
                [_epmd(), "-port", mapper, "-address", "127.0.0.1"],
                log_path=self._folder / "epmd.log",
                env=self._env,
            )
        self._process = Process(
            [self._scripts / "rabbitmq-server"],
            log_path=self._folder / "rabbitmq.log",
            cwd=self._folder,
            env=self._env,
        )
        self._process.wait_for_log(_READY, timeout=60.0)

    def _environment(self, port: int) -> dict[str, str]:
        """Everything that RabbitMQ would otherwise share with another server's."""
        folder = self._folder
        for name in ("home", "data", "log"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "plugins").write_text("[].\n")
        (folder / "environment").write_text("")
        # The disk's default reserve would block publishers on a machine that is nearly full.
        (folder / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            # With input allowed the script becomes the server instead of its parent, so that
            # the process tied to the test run is the server; -noinput then takes it back.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput +B i +S 1:1",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }


def scripts() -> Path:
    """The folder of RabbitMQ's scripts; skips or fails the test (see ``needs``) without."""
    found = shutil.which("rabbitmq-server")
    places = [Path(place) for place in _PLACES]
    if found is not None:
        places.append(Path(found).resolve().parent)
    for place in places:
        if (place / "rabbitmq-server").exists() and (place / "rabbitmqctl").exists():
            return place
    missing("RabbitMQ", "apt-get install rabbitmq-server")


def _epmd() -> str:
    found = shutil.which("epmd")
    if found is None:
        missing("Erlang's epmd", "apt-get install erlang-base")
    return found
