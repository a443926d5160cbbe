"""Runs the code blocks of one page in a folder of its own, as its reader would."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.services.pages import PYTHON, SHELL, Block, check_syntax, commands
from tests.services.process import Process, free_port, program
from tests.services.waiting import wait_for

_REDIS = re.compile(r"redis://localhost(?::6379)?(?:/(?P<db>\d+))?(?![\w:])")
_AMQP = re.compile(r"(?:py)?amqp://(?:\w+:\w+@)?localhost(?::5672)?(?://|/\w*)?")
#: Flower's own port, and the one that pages take for metrics.
_FLOWER, _METRICS = "5555", "9810"
_PORT = re.compile(rf"(?<=localhost:)({_FLOWER}|{_METRICS})\b|(?<=--metrics-port )({_METRICS})\b")
#: What runs until it is ended, and what it prints when it serves.
_SERVERS = {
    "worker": " ready.",
    "autoscaler": "autoscaler keeps",
    "beat": "beat: Starting",
    "flower": "Visit me at ",
    "uvicorn": "Uvicorn running on",
}
_BLOCK_TIMEOUT = 90.0
_SHELL = ("bash", "-euo", "pipefail", "-c")


class PageRun:
    """One page: files that its blocks write, servers that they start, until :meth:`kill`.

    ``redis`` gives the URL for a database's number, ``rabbitmq`` the one of a virtual host;
    they take the place of the URLs on localhost that pages show. So do ports of the page's own
    for Flower's and for that of metrics.
    """

    def __init__(
        self,
        folder: Path,
        *,
        root: Path,
        redis: Callable[[int], str],
        rabbitmq: Callable[[], str],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._folder = folder
        self._root = root
        self._redis = redis
        self._rabbitmq = rabbitmq
        self._servers: list[Process] = []
        self._ports = {port: str(free_port()) for port in (_FLOWER, _METRICS)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
        # Scripts lie beside the page's files, so that they import what the reader imports.
        # An autoscaler keeps its state in the user's folder.
        state = {"XDG_STATE_HOME": str(folder / "state")}
        flower = {"FLOWER_PORT": self._ports[_FLOWER], "FLOWER_ADDRESS": "127.0.0.1"}
        self._environ = {**environ, **state, **flower, "PATH": path, "PYTHONPATH": str(folder)}

    def run(self, block: Block) -> None:
        """Do what the block asks for.

        Raises:
            AssertionError: it failed; the message holds its output and the servers' logs.
        """
        if block.no_run is not None:
            self._check(block)
        elif block.file is not None:
            check_syntax(block)
            path = self._folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._own_urls(block.text))
        elif block.language in PYTHON:
            self._run_python(block)
        elif block.language in SHELL:
            self._run_shell(block)
        else:
            check_syntax(block)

    def end(self) -> None:
        """End what still runs, in its own time.

        Raises:
            AssertionError: a server had ended by itself before, or does not end.
        """
        early = [server.log_tail() for server in self._servers if not server.running]
        for server in self._servers:
            server.signal(signal.SIGTERM)
        for server in self._servers:
            server.wait(15.0)
        assert not early, f"a process that the page started did not stay: {early}"

    def kill(self) -> None:
        """End what still runs, now. Idempotent."""
        for server in self._servers:
            server.kill()

    def _check(self, block: Block) -> None:
        check_syntax(block)
        if block.language not in SHELL:
            return
        self._call(["bash", "-n", "-c", block.script], block)
        for command in commands(block.script):
            if command.startswith("make "):  # is there such a target?
                self._call([*shlex.split(command), "--dry-run"], block, cwd=self._root)

    def _run_python(self, block: Block) -> None:
        script = self._folder / f"line_{block.line}.{'py' if block.language == 'python' else 'txt'}"
        script.write_text(self._own_urls(block.text))
        doctest = ["-m", "doctest", "-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE"]
        self._call([sys.executable, *(doctest if script.suffix == ".txt" else []), script], block)

    def _run_shell(self, block: Block) -> None:
        script: list[str] = []
        for command in commands(self._own_urls(block.script)):
            ready = _ready_text(command)
            if ready is None:
                script.append(command)
                continue
            # What stands before a server runs before it.
            self._call([*_SHELL, "\n".join(script)], block)
            script.clear()
            self._serve(command, ready)
        if script:
            self._call([*_SHELL, "\n".join(script)], block)

    def _serve(self, command: str, ready: str) -> None:
        words = shlex.split(command.rstrip("& "))
        if "worker" in words and not {"-l", "--loglevel"} & set(words):
            words += ["-l", "INFO"]  # or it would not tell that it is ready
        server = Process(
            [program("env"), *words] if "=" in words[0] else [program(words[0]), *words[1:]],
            log_path=self._folder / f"server_{len(self._servers)}.log",
            cwd=self._folder,
            env=self._environ,
        )
        self._servers.append(server)
        server.wait_for_log(ready, timeout=30.0)
        if ready == _SERVERS["flower"]:
            # It says so before it starts its threads; ended while it does, it may wait for one of
            # them for ever (a signal in ThreadPoolExecutor.submit, Flower 2.2 and Python 3.11).
            url = f"http://127.0.0.1:{self._ports[_FLOWER]}/healthcheck"
            wait_for(lambda: _answers(url), 30.0, what=server.log_tail)

    def _call(self, words: list[str | Path], block: Block, cwd: Path | None = None) -> None:
        output = self._folder / f"line_{block.line}.out"
        with output.open("wb") as file:
            process = subprocess.Popen(
                words,
                cwd=cwd or self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                ended = f"ended with {process.wait(_BLOCK_TIMEOUT)}"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                ended = f"still ran after {_BLOCK_TIMEOUT} s"
        logs = "\n".join(server.log_tail() for server in self._servers)
        assert process.returncode == 0, (
            f"the block at line {block.line} {ended}: {output.read_text()}\n{logs}"
        )

    def _own_urls(self, text: str) -> str:
        text = _REDIS.sub(lambda found: self._redis(int(found["db"] or 0)), text)
        text = _PORT.sub(lambda found: self._ports[found[0]], text)
        return _AMQP.sub(lambda _: self._rabbitmq(), text)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5.0):
            return True
    except urllib.error.HTTPError:  # it wants a login, or has another prefix: an answer as well
        return True
    except OSError:
        return False


def _ready_text(command: str) -> str | None:
    """What the command prints when it serves, or None if it is no server."""
    try:
        words = shlex.split(command.rstrip("& "))
    except ValueError:  # a line of something longer, such as a here-document
        return None
    programs = {Path(word).name for word in words}
    if not programs & {"celery", "uvicorn"} or "--help" in words:
        return None
    return next((ready for word, ready in _SERVERS.items() if word in programs), None)
