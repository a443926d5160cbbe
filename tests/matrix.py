"""Run the unit tests on every Python that is here, and on the oldest libraries allowed.

``python -m tests.matrix`` makes one environment for each in ``.venvs``; there they find only
this package, what it requires, pytest and hypothesis. The Python that runs this is left out,
for the whole suite runs on it; the oldest Celery, kombu and redis run on that one.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_VENVS = ROOT / ".venvs"
_MINORS = range(10, 20)
# pyproject.toml sets timeouts, so pytest-timeout must be there to read them.
_PYTEST = ("pytest", "pytest-timeout", "hypothesis")
_OLDEST = ("celery", "kombu", "redis")
_NEEDED = "import ensurepip, sys, venv; print(sys.version_info.minor)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One column of the matrix: a Python, and what is pinned in it."""

    name: str
    python: Path
    pins: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return _VENVS / self.name


def interpreters() -> dict[int, Path]:
    """The Pythons 3.10 and newer on the PATH or in pyenv, by minor version, that can make venvs."""
    found: dict[int, Path] = {}
    for minor in _MINORS:
        for python in _candidates(minor):
            if _minor_of(python) == minor:
                found[minor] = python
                break
    return found


def _candidates(minor: int) -> Iterator[Path]:
    path = subprocess.run(
        ["sh", "-c", f"command -v python3.{minor}"], capture_output=True, text=True, check=False
    )
    if path.stdout.strip():
        yield Path(path.stdout.strip())
    pyenv = Path.home() / ".pyenv" / "versions"
    yield from sorted(pyenv.glob(f"3.{minor}.*/bin/python3"), reverse=True)


def _minor_of(python: Path) -> int | None:
    # Asked, for the shims of pyenv exist for versions that are not installed.
    done = subprocess.run([python, "-c", _NEEDED], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def oldest(setup: str) -> tuple[str, ...]:
    """The lower bounds in setup.cfg's requirements, as pins: ``celery ==5.6``."""
    config = configparser.ConfigParser()
    config.read_string(setup)
    required = config["options"]["install_requires"]
    bounds = dict(re.findall(r"^(\w+) >=([\d.]+)", required, re.MULTILINE))
    return tuple(f"{name} =={bounds[name]}" for name in _OLDEST)


def environments(pythons: dict[int, Path], pins: tuple[str, ...]) -> list[Environment]:
    """The oldest libraries on this Python first, then every other Python."""
    here = sys.version_info.minor
    others = [
        Environment(name=f"python3.{minor}", python=python)
        for minor, python in pythons.items()
        if minor != here
    ]
    return [Environment(name="oldest", python=Path(sys.executable), pins=pins), *others]


def make(environment: Environment) -> Path:
    """Make the environment, unless it stands as it should; returns its Python."""
    python = environment.folder / "bin" / "python"
    stamp = environment.folder / "stamp"
    packages = [*_PYTEST, *environment.pins]
    state = repr((environment, packages, (ROOT / "setup.cfg").read_text()))
    wanted = hashlib.sha256(state.encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    _run(environment.python, "-m", "venv", "--clear", environment.folder)
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, *packages, "--editable", ROOT)
    stamp.write_text(wanted)
    return python


def main() -> int:
    """Run all of them, also after one failed; 1 if one did."""
    failed = []
    for environment in environments(interpreters(), oldest((ROOT / "setup.cfg").read_text())):
        print(f"--- unit tests on {environment.name} {' '.join(environment.pins)}", flush=True)
        python = make(environment)
        done = subprocess.run([python, "-m", "pytest", "tests/unit"], cwd=ROOT, check=False)
        if done.returncode != 0:
            failed.append(environment.name)
    if failed:
        print(f"the unit tests failed on: {', '.join(failed)}")
    return 1 if failed else 0


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
