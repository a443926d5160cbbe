"""The demo as a user starts it: a process with a broker, an autoscaler and nodes of its own."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from celery_concurrent.embedded import EmbeddedBroker
from celery_concurrent.errors import MissingExtraError
from tests.services.needs import missing
from tests.services.waiting import wait_for

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc"),
]

# Some 7 s of the trace at once: that needs more than one node.
QUICK = ("--limit", "60", "--speed", "30")
# For what only has to end.
TINY = ("--limit", "5")
# Long enough to be ended from outside, with more than one node soon.
LONG = ("--speed", "10")


@pytest.fixture(scope="module", autouse=True)
def needs_server() -> None:
    try:
        EmbeddedBroker()
    except MissingExtraError as error:
        missing("a server for the embedded broker", str(error))


def is_gone(pid: int) -> bool:
    """A zombie counts: an orphan's is for init to reap, which may be slow in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def descendants_of(pid: int) -> dict[int, str]:
    """Its living children, and theirs, and their command lines."""
    parents, argvs = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv:
            parents[int(entry.name)], argvs[int(entry.name)] = parent, argv
    found: set[int] = set()
    while more := {child for child, of in parents.items() if of in {pid, *found}} - found:
        found |= more
    return {child: argvs[child] for child in found}


def pid_of(word: str, children: dict[int, str]) -> int:
    return next(pid for pid, argv in children.items() if word in argv)


def nodes_of(family: dict[int, str]) -> list[int]:
    return [pid for pid, argv in family.items() if " -P concurrent -Q embed" in argv]


@dataclass
class Demo:
    """A started demo; its temporary files lie in a folder of the test."""

    process: subprocess.Popen[str]
    folder: Path
    seen: list[str] = field(default_factory=list)

    def started(self) -> dict[int, str]:
        """Wait until the fleet has grown; broker, autoscaler, template and nodes."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.seen.append(text)
            if " -> " in text:
                break
        return wait_for(self._family, what=lambda: f"{descendants_of(self.process.pid)}")

    def _family(self) -> dict[int, str]:
        found = descendants_of(self.process.pid)
        words = ("unixsocket", " autoscaler --simulate-gpus", "local.template")
        complete = all(any(word in argv for argv in found.values()) for word in words)
        return found if complete and len(nodes_of(found)) >= 2 else {}

    def rest(self, within: float = 60.0) -> tuple[str, str]:
        out, err = self.process.communicate(timeout=within)
        return "".join(self.seen) + out, err


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []
    # Not below tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="cc-") as temporary:

        def start(*options: str) -> Demo:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery_concurrent.demo", *options],
                cwd=tmp_path,
                env={**os.environ, "TMPDIR": temporary, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            started.append(Demo(process, Path(temporary)))
            return started[-1]

        yield start
        for each in started:
            each.process.kill()
            each.process.communicate()


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.glob("celery-concurrent-*"))


def test_demo_runs_each_input_twice_and_leaves_a_plot_and_nothing_else(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    running = demo(*QUICK)
    family = running.started()
    # The broker's address is not for all to read.
    assert not any("redis+socket" in argv for argv in family.values())
    out, err = running.rest()
    assert (running.process.returncode, err) == (0, "")
    assert "120 of 120: none lost, none failed" in out
    nodes = re.search(r"^  nodes +1 to (\d) +(\d)$", out, re.MULTILINE)
    assert nodes is not None
    assert 2 <= int(nodes[1]) <= 6
    # The fixed fleet costs as much, and less than a node more.
    cost = re.search(r"^  node-seconds +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
    length = re.search(r"^  duration +([\d.]+) s +([\d.]+) s$", out, re.MULTILINE)
    assert cost is not None
    assert length is not None
    mean = float(cost[1]) / float(length[1])
    assert mean - 0.1 < int(nodes[2]) < mean + 1.1
    assert float(cost[2]) == pytest.approx(int(nodes[2]) * float(length[2]), rel=0.02)
    busiest = re.search(r"inputs at once +(\d+) in a node at most, max_inputs=26", out)
    assert busiest is not None
    assert int(busiest[1]) <= 26
    plot = tmp_path / "celery-concurrent-demo.png"
    assert str(plot) in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert all(is_gone(pid) for pid in family)
    assert left_in(running.folder) == []


def test_two_demos_at_once_do_not_meet(
    demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nor does a broker of the user's own, which Celery would prefer to the app's.
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, "redis://localhost:1/0")
    first, second = demo(*TINY, "--plot", "1.png"), demo(*TINY, "--plot", "2.png")
    for each in (first, second):
        out, err = each.rest()
        assert (each.process.returncode, err) == (0, "")
        assert "10 of 10: none lost, none failed" in out


def test_ctrl_c_ends_all_in_order(demo: Callable[..., Demo]) -> None:
    running = demo(*LONG)
    family = running.started()
    running.process.send_signal(signal.SIGINT)
    _, err = running.rest(within=30)
    assert running.process.returncode == 128 + signal.SIGINT
    assert err.strip() == "demo interrupted; autoscaler, nodes and broker are ended"
    assert all(is_gone(pid) for pid in family)
    assert left_in(running.folder) == []


def test_sigkill_of_the_demo_ends_all_it_started_and_the_next_one_tidies_up(
    demo: Callable[..., Demo],
) -> None:
    running = demo(*LONG)
    family = running.started()
    running.process.kill()
    running.process.wait()
    wait_for(lambda: all(is_gone(pid) for pid in family))
    after = demo(*TINY)
    after.rest()
    assert after.process.returncode == 0
    assert left_in(running.folder) == []


def test_autoscaler_that_dies_is_told_and_its_nodes_are_ended(demo: Callable[..., Demo]) -> None:
    running = demo(*LONG)
    family = running.started()
    os.kill(pid_of(" autoscaler --simulate-gpus", family), signal.SIGKILL)
    _, err = running.rest(within=30)
    assert running.process.returncode == 1
    assert "the autoscaler ended by signal 9; its log ends with:" in err
    assert "Traceback" not in err
    assert all(is_gone(pid) for pid in family)
    assert left_in(running.folder) == []


def test_broker_that_dies_ends_the_demo_with_an_error(demo: Callable[..., Demo]) -> None:
    running = demo(*LONG)
    family = running.started()
    os.kill(pid_of("unixsocket", family), signal.SIGKILL)
    _, err = running.rest(within=30)
    assert running.process.returncode == 1
    assert err.startswith("demo: ")
    assert "Traceback" not in err
    assert all(is_gone(pid) for pid in family)


def test_terminal_shows_the_live_screen(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery_concurrent.demo", *TINY],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = b""
    try:
        while chunk := os.read(ours, 65536):
            screen += chunk
    except OSError:  # the other side is closed: Linux says EIO
        pass
    os.close(ours)
    assert process.wait(10) == 0
    for text in (
        b"whole run",
        b"GPU-simulated-0",
        b"last decision",
        b"5 of 5 inputs",
        b"none lost",
    ):
        assert text in screen
