"""``celery fleet plan`` as an operator runs it: a process, without any broker."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

SOURCE = """
from celery import Celery
from celery_concurrent import concurrent

app = Celery("plan", broker="redis://nobody.invalid:1/0")

@app.task(queue="chat")
@concurrent(max_inputs=5, target_inputs=4)
async def answer(prompt): ...
"""

TRACE = Path(__file__).parents[2] / "benchmarks/fleet/traces/azure2023_code.csv.gz"


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "shop", "fleet", "plan", *map(str, words)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SOURCE)
    return tmp_path


def test_a_recorded_trace_is_planned_shown_and_drawn(folder: Path) -> None:
    words = command("chat", "--trace", TRACE, "--max-nodes", "64", "--start-seconds", "20")
    shown = subprocess.run(
        [*words, "--png", "plan.png"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
    assert shown.stdout.startswith("chat: 8,819 inputs in 3,436 s, 2.4 s each; a node takes")
    assert shown.stdout.endswith("drawn: plan.png\n")
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG\r\n")
    told = json.loads(
        subprocess.run([*words, "--json"], cwd=folder, capture_output=True, check=True).stdout
    )
    hold, break_even, fixed = told["variants"]
    assert f"{hold['node_seconds']:,.0f}" in shown.stdout
    assert fixed["node_seconds"] == pytest.approx(hold["node_seconds"], rel=0.1)
    # It learns to keep the nodes that a start of 20 s makes dear.
    assert break_even["within_10_s"] > hold["within_10_s"] > 0.5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A child of a test run that ignores Ctrl-C, as one in the background does, would too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_long_replay_at_once_and_leaves_nothing(
    folder: Path, interruptible: None
) -> None:
    # The command opens the trace when all else is done; then the test goes on, too.
    os.mkfifo(folder / "trace")
    process = subprocess.Popen(
        command("--trace", "trace", "--duration", "9", "--png", "plan.png"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = "".join(f"{place / 9}\n" for place in range(200_000))
    (folder / "trace").write_bytes(gzip.compress(f"arrival_s\n{lines}".encode(), 1))
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stdout, stderr.lstrip()) == (1, "", "Aborted!\n")
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["shop.py"]
