"""Misuse that a type checker must report, each in a small program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = "batched, concurrent, scaling, set_local_input_concurrency, task_map"
HEAD = f"from celery_concurrent import {NAMES}\n"
BATCHED = "@batched(max_batch_size=2)\ndef f(x: list[int]) -> list[int]:\n    return x\n\n"

MISUSES = {
    "positional": "concurrent(10)",
    "string": 'concurrent(max_inputs="10")',
    "unknown": "concurrent(max_inputs=10, slots=3)",
    "argument": "@concurrent(max_inputs=2)\ndef f(x: int) -> int:\n    return x\n\nf('one')",
    "scaling_positional": "scaling(3)",
    "scaling_string": 'scaling(max_nodes="3")',
    "scaling_float": "scaling(gpus=0.5)",
    "scaling_policy": 'scaling(policy="greedy")',
    "scaling_unknown": "scaling(max_node=3)",
    "scaling_older": "scaling(keep_warm=3)",
    "scaling_argument": "@scaling(gpus=1)\ndef f(x: int) -> int:\n    return x\n\nf('one')",
    "map_positional": "task_map(len, [], 10)",
    "map_string": 'task_map(len, [], chunk="10")',
    "map_no_iterable": "task_map(len, 10)",
    "map_no_task": "task_map(3, [])",
    "batched_positional": "batched(64)",
    "batched_unknown": "batched(max_batch_size=64, wait_ms=5)",
    "batched_argument": f"{BATCHED}f('one')",
    "batched_list": f"{BATCHED}f([1])",
    "float": "set_local_input_concurrency(2.5)",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of all the programs."""
    folder = tmp_path_factory.mktemp("programs")
    for name, program in {
        **MISUSES,
        "right": f"concurrent(max_inputs=10)\nscaling(max_nodes=3)\n{BATCHED}running = f(1)",
    }.items():
        (folder / f"program_{name}.py").write_text(f"{HEAD}\n{program}\n")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        # An editable installation is no folder that mypy finds; the links beside it are.
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert "import-not-found" not in run.stdout, run.stdout
    return run.stdout


@pytest.mark.parametrize("name", MISUSES)
def test_type_checker_reports_misuse(name: str, report: str) -> None:
    assert f"program_{name}.py:" in report


def test_type_checker_accepts_right_use(report: str) -> None:
    assert "program_right.py:" not in report
