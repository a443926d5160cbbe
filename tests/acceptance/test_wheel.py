"""What is built from the tree is what is in the tree, and works where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.services.process import Process

ROOT = Path(__file__).parents[2]
#: Folder in the tree → package that it installs as.
PACKAGES = {
    "celery_concurrent": "celery_concurrent",
    "autoscaler": "celery_concurrent/autoscaler",
    "gpu": "celery_concurrent/gpu",
}
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
CACHES = shutil.ignore_patterns("__pycache__", ".*")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, links kept: a build leaves files behind that the next one would ship."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=CACHES)
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    return build("sdist", tree)


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build("wheel", tree)


def build(kind: str, tree: Path) -> Path:
    """Call the build backend as pip does, without its download of a fresh setuptools."""
    code = f"import setuptools.build_meta as backend; print(backend.build_{kind}('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "dist" / done.stdout.split()[-1]


def packaged(tree: Path) -> set[str]:
    """The files that the tree says the package has, by the names they are installed under."""
    files = set()
    for folder, package in PACKAGES.items():
        for path in (tree / folder).rglob("*"):
            # rglob does not follow links, so each file is met once, in its real folder.
            if path.is_file() and not path.is_symlink():
                files.add(f"{package}/{path.relative_to(tree / folder)}")
    return files


def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_files_of_the_tree_and_no_others(tree: Path, wheel: Path) -> None:
    assert shipped(wheel) == packaged(tree)


def test_the_wheel_from_an_sdist_is_the_same(tree: Path, sdist: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path)
    (unpacked,) = tmp_path.iterdir()
    assert shipped(build("wheel", unpacked)) == packaged(tree)


def test_the_wheel_tells_its_version_licence_and_command(wheel: Path) -> None:
    import celery_concurrent

    with zipfile.ZipFile(wheel) as archive:
        told = {name.rpartition("/")[2]: name for name in archive.namelist() if "-info/" in name}
        metadata = archive.read(told["METADATA"]).decode()
        commands = archive.read(told["entry_points.txt"]).decode()
    assert f"\nVersion: {celery_concurrent.__version__}\n" in metadata
    assert "\nLicense-Expression: BSD-3-Clause\n" in metadata
    assert "LICENSE" in told
    for command in (
        "autoscaler = celery_concurrent.autoscaler.command:autoscaler",
        "concurrent = celery_concurrent.cli:concurrent",
        "fleet = celery_concurrent.autoscaler.command:fleet",
        "gpus = celery_concurrent.gpu.command:gpus",
    ):
        assert f"\n{command}\n" in commands


@pytest.mark.parametrize("folder", ["autoscaler", "gpu"])
def test_a_mapped_folder_refuses_its_bare_name(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        f"ImportError: this folder is no package of its own: import celery_concurrent.{folder}"
        in (done.stderr)
    )


@pytest.mark.parametrize("folder", ["autoscaler", "gpu"])
def test_a_mapped_folder_imports_by_its_full_name(folder: str) -> None:
    subprocess.run([sys.executable, "-c", f"import celery_concurrent.{folder}"], check=True)


TASKS = """
    import asyncio
    import os
    import time

    from celery import Celery
    from celery_concurrent import concurrent, current_input_id

    app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])

    @app.task
    @concurrent(max_inputs=50)
    async def doubled(number):
        await asyncio.sleep(0.5)
        return 2 * number

    @app.task
    @concurrent(max_inputs=10)
    def told():
        time.sleep(0.1)
        return current_input_id()
"""
SEND = """
    import time
    from tasks import doubled, told

    started = time.monotonic()
    inputs = [doubled.delay(number) for number in range(50)]
    assert [one.get(timeout=30) for one in inputs] == [2 * number for number in range(50)]
    # One by one they would take 25 s.
    assert time.monotonic() - started < 12.0, time.monotonic() - started
    one = told.delay()
    assert one.get(timeout=10) == one.id
    print("all results are right")
"""


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_a_node_runs_from_the_wheel_in_an_empty_environment(
    wheel: Path, redis_url: str, tmp_path: Path
) -> None:
    """Its folder holds nothing but the user's own module, its environment but the wheel's needs."""
    venv, folder = tmp_path / "venv", tmp_path / "empty"
    folder.mkdir()
    clean = {"PATH": os.defpath, "HOME": str(tmp_path), "BROKER": redis_url}
    # pip's own settings (an index, a proxy) come from the environment.
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", wheel], cwd=folder, check=True)
    (folder / "tasks.py").write_text(textwrap.dedent(TASKS))
    node = Process(
        [venv / "bin" / "celery", "-A", "tasks", "worker", "-P", "concurrent", "-l", "INFO"],
        log_path=tmp_path / "node.log",
        cwd=folder,
        env=clean,
    )
    try:
        node.wait_for_log(" ready.", timeout=30)
        sent = subprocess.run(
            [venv / "bin" / "python", "-c", textwrap.dedent(SEND)],
            cwd=folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert sent.returncode == 0, sent.stderr + node.log_tail()
        assert node.stop() == 0, node.log_tail()
    finally:
        node.kill()
