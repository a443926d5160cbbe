"""The driver's library as a test sets it, and a process that reads it by the real bindings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from celery_concurrent.gpu.device import Device, Inventory, Memory, Process
from tests.services.needs import missing

ROOT = Path(__file__).parents[2]
LIBRARY = "libnvidia-ml.so.1"
_SOURCE = Path(__file__).parent / "fake_nvml" / "nvml.c"
_STRICT = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror")


def compile_library(folder: Path, *defines: str) -> Path:
    """Make the fake library in the folder, which serves as an LD_LIBRARY_PATH then."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("a C compiler", "apt-get install gcc libc6-dev")
    folder.mkdir(parents=True, exist_ok=True)
    options = [*_STRICT, "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    options += [f"-D{name}" for name in defines]
    done = subprocess.run(
        [compiler, *options, "-o", folder / LIBRARY, _SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One inventory and what the reader logged while it made it."""

    inventory: Inventory
    said: list[str]

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.inventory.devices


class Reader:
    """A process that reads inventories; a context manager.

    Args:
        library: the folder of the library it finds first; None for the machine's own.
    """

    def __init__(self, library: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        environ = {**os.environ, **(env or {})}
        if library is not None:
            environ["LD_LIBRARY_PATH"] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.fake_nvml.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environ,
        )

    def read(self) -> Read:
        """The inventory now."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("\n")
        stdin.flush()
        told = json.loads(stdout.readline())
        return Read(inventory=_inventory(told["inventory"]), said=told["said"])

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:
            self._process.kill()


class FakeHost:
    """A host whose driver tells what :meth:`has` says, also to readers that run already."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library = library
        self._state = state
        self.has()

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to see this host."""
        return {"LD_LIBRARY_PATH": str(self.library), "FAKE_NVML": str(self._state)}

    def has(self, *lines: str, driver: str = "550.54.15") -> None:
        """From now on. The lines are as in nvml.c."""
        written = self._state.with_suffix(".new")
        written.write_text("".join(f"{line}\n" for line in (f"driver {driver}", *lines)))
        written.replace(self._state)

    def reader(self) -> Reader:
        return Reader(self.library, self.environ)


def _inventory(told: Mapping[str, Any]) -> Inventory:
    return Inventory(
        absence=told["absence"], devices=tuple(_device(one) for one in told["devices"])
    )


def _device(told: Mapping[str, Any]) -> Device:
    memory, processes = told["memory"], told["processes"]
    built: Sequence[Process] | None = (
        None if processes is None else [Process(**one) for one in processes]
    )
    return Device(
        **{
            **told,
            "memory": None if memory is None else Memory(**memory),
            "processes": None if built is None else tuple(built),
        }
    )
