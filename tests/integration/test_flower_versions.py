"""Flower without this package, this package without Flower, and a Flower that nobody knows yet."""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.services.fixtures import MakeProject
from tests.services.flower import Flower, StartFlower
from tests.services.project import Broker, Project

PLAIN = """
    from celery import Celery

    app = Celery()

    @app.task
    def add(a, b):
        return a + b
"""
CONCURRENT = """
    from celery import Celery
    from celery_concurrent import concurrent

    app = Celery()

    @app.task(queue="q")
    @concurrent(max_inputs=2)
    def add(a, b):
        return a + b
"""
#: As where this package is not installed: Celery finds none of its commands.
WITHOUT_US = """
    import importlib.metadata as metadata

    found = metadata.entry_points

    def entry_points(**wanted):
        return tuple(
            each for each in found(**wanted) if not each.value.startswith("celery_concurrent.")
        )

    metadata.entry_points = entry_points
"""
ANOTHER_VERSION = """
    import flower

    flower.__version__ = "9.9.0"
"""
#: As where it is not installed: there is no such module.
WITHOUT_FLOWER = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "flower":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""
BROKEN_PAGE = """
    import celery_concurrent.flower.templating as templating

    def fail(*arguments, **options):
        raise RuntimeError("no templates today")

    templating.FleetLoader.__init__ = fail
"""
#: Seconds that the page may cost at the start.
MOST = 0.3


def site(folder: Path, source: str) -> dict[str, str]:
    """An environment in which Python runs ``source`` before all else."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(textwrap.dedent(source))
    return {"PYTHONPATH": str(folder)}


def is_plain(flower: Flower) -> bool:
    """Whether Flower's own pages are there and ours is not."""
    with flower.client() as client:
        workers, fleet = client.get("/workers"), client.get("/fleet")
        assert workers.status_code == 200
        assert "flower_events_total" in client.get("/metrics").text
        return fleet.status_code == 404 and "/fleet" not in workers.text


def test_flower_without_this_package_is_as_it_was(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower, tmp_path: Path
) -> None:
    project = celery_project(PLAIN, broker=redis_broker)
    flower = start_flower(project, env=site(tmp_path / "site", WITHOUT_US))
    assert is_plain(flower)
    assert "leet page" not in flower.log()


def test_an_app_without_concurrent_tasks_has_the_page_and_it_is_empty(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower
) -> None:
    flower = start_flower(celery_project(PLAIN, broker=redis_broker))
    with flower.client() as client:
        assert client.get("/fleet").status_code == 200
        assert client.get("/fleet/data").json()["fleets"] == []


def test_an_unknown_version_gets_one_warning_and_stays_plain(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower, tmp_path: Path
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    flower = start_flower(project, env=site(tmp_path / "site", ANOTHER_VERSION))
    assert is_plain(flower)
    [line] = [line for line in flower.log().splitlines() if "leet page" in line]
    assert "it knows Flower 2.2, and this is Flower 9.9.0" in line
    assert "pip install" in line
    assert "Traceback" not in flower.log()


def test_the_warning_is_seen_where_flower_logs_nothing(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower, tmp_path: Path
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    flower = Flower(project, "--logging=none", env=site(tmp_path / "site", ANOTHER_VERSION))
    try:
        flower.wait_for_log("this is Flower 9.9.0", 30.0)
    finally:
        flower.kill()


def test_a_page_that_fails_leaves_flower_running(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower, tmp_path: Path
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    flower = start_flower(project, env=site(tmp_path / "site", BROKEN_PAGE))
    assert is_plain(flower)
    assert flower.log().count("the Fleet page could not be set up") == 1
    assert "(RuntimeError: no templates today)" in flower.log()


@pytest.mark.parametrize("words", [("report",), ("concurrent",), ("fleet", "--help")])
def test_without_flower_the_other_commands_work(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path, words: tuple[str, ...]
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    done = celery(project, *words, env=site(tmp_path / "site", WITHOUT_FLOWER))
    assert done.returncode == 0, done.stderr
    assert "flower" not in done.stderr.lower()


def test_without_flower_its_command_is_celerys_to_explain(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    done = celery(project, "flower", env=site(tmp_path / "site", WITHOUT_FLOWER))
    assert done.returncode != 0
    assert "No module named 'flower'" in done.stdout + done.stderr
    assert "celery_concurrent" not in done.stdout + done.stderr


@pytest.mark.timing
@pytest.mark.slow
def test_the_page_costs_little_at_the_start(
    celery_project: MakeProject, redis_broker: Broker, tmp_path: Path
) -> None:
    project = celery_project(CONCURRENT, broker=redis_broker)
    plain = site(tmp_path / "site", ANOTHER_VERSION)
    seconds: dict[str, list[float]] = {"plain": [], "page": []}
    for _ in range(7):
        seconds["plain"].append(start_seconds(project, plain))
        seconds["page"].append(start_seconds(project, {}))
    cost = statistics.median(seconds["page"]) - statistics.median(seconds["plain"])
    print(f"the page costs {cost:.3f} s at the start: {seconds}")
    assert cost <= MOST, seconds


def start_seconds(project: Project, env: dict[str, str]) -> float:
    """From the command's start until Flower serves."""
    began = time.monotonic()
    flower = Flower(project, env=env)
    try:
        flower.wait_until_ready()
        return time.monotonic() - began
    finally:
        flower.kill()


def celery(project: Project, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", project.name, *words],
        cwd=project.folder,
        env={**project.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
