"""Metrics of a real autoscaler with real nodes, as Prometheus scrapes them."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celery_concurrent.metrics.catalogue import PREFIX
from tests.services.fixtures import MakeFleetProject
from tests.services.fleets import Fleets, nodes_of, workers_of
from tests.services.project import Project
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]

SOURCE = """
    import os
    import time

    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q")
    @scaling(min_nodes=0, max_nodes=2, scaledown_window=60)
    @concurrent(max_inputs=4)
    def wait(flag):
        if not flag:
            raise ValueError("as it is to")
        while not os.path.exists(flag):
            time.sleep(0.02)
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def project(fleet_project: MakeFleetProject) -> Project:
    return fleet_project(SOURCE)


class Scraped:
    """An autoscaler that serves metrics."""

    def __init__(self, project: Project) -> None:
        self.fleets = Fleets(project, "-l", "INFO", "--metrics-port", "0")
        self.fleets.wait_until_ready()
        said = self.fleets.log().partition("metrics are at ")[2]
        self.url = said.split()[0]

    def samples(self) -> Samples:
        with urllib.request.urlopen(self.url, timeout=5.0) as answer:
            text = answer.read().decode()
        return {
            (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, metric: str, /, **labels: str) -> float | None:
        return self.samples().get((metric, frozenset(labels.items())))

    def told(self) -> Samples:
        """All but the buckets, which would be a page."""
        return {key: value for key, value in self.samples().items() if "_bucket" not in key[0]}

    def wait_for(self, value: float | None, metric: str, /, **labels: str) -> None:
        wait_for(
            lambda: self.value(metric, **labels) == value,
            30.0,
            what=lambda: f"{metric}{labels} == {value}; {self.told()}; {self.fleets.log_tail()}",
        )


@pytest.fixture
def scraped(project: Project) -> Iterator[Scraped]:
    scraped = Scraped(project)
    yield scraped
    scraped.fleets.kill()


def test_inputs_are_counted_and_stay_counted_when_their_node_is_killed(
    project: Project, scraped: Scraped, tmp_path: Path
) -> None:
    flag, wait = tmp_path / "flag", f"{project.name}.wait"
    # From 0, before there is any node: or the first inputs would not be seen to come.
    scraped.wait_for(0, "task_run_seconds_count", task=wait)
    waiting = [project.tasks.wait.delay(str(flag)) for _ in range(10)]
    scraped.wait_for(8, "fleet_running", queue="q")
    scraped.wait_for(8, "fleet_slots", queue="q")
    scraped.wait_for(2, "fleet_backlog", queue="q")
    scraped.wait_for(10, "fleet_demand", queue="q")
    assert scraped.value("fleet_nodes", queue="q", state="ready") == 2
    assert scraped.value("fleet_desired_nodes", queue="q") == 2
    assert scraped.value("fleet_max_nodes", queue="q") == 2
    assert scraped.value("fleet_state", queue="q", state="ok") == 1
    assert scraped.value("fleet_autoscaler_up", queue="q") == 1
    assert (scraped.value("fleet_decisions_total", queue="q", cause="demand") or 0) >= 1
    assert scraped.value("node_startup_seconds_count", queue="q") == 2
    assert (scraped.value("fleet_memory_bytes", queue="q") or 0) > 10_000_000

    flag.touch()
    for result in waiting:
        result.get(timeout=30)
    for failing in [project.tasks.wait.delay("") for _ in range(3)]:
        failing.get(timeout=30, propagate=False)
    scraped.wait_for(13, "task_run_seconds_count", task=wait)
    scraped.wait_for(13, "task_wait_seconds_count", task=wait)
    scraped.wait_for(10, "task_outcomes_total", task=wait, outcome="succeeded")
    scraped.wait_for(3, "task_outcomes_total", task=wait, outcome="failed")
    assert (scraped.value("fleet_idle_slot_seconds_total", queue="q") or 0) > 0

    killed = workers_of(project)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    project.tasks.wait.delay(str(flag)).get(timeout=30)
    scraped.wait_for(14, "task_run_seconds_count", task=wait)
    scraped.wait_for(3, "task_outcomes_total", task=wait, outcome="failed")
    scraped.wait_for(2 * len(killed), "node_startup_seconds_count", queue="q")


def test_metrics_are_served_while_nodes_drain_and_no_longer(
    project: Project, scraped: Scraped, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    project.tasks.wait.delay(str(flag))
    scraped.wait_for(1, "fleet_running", queue="q")
    scraped.fleets.signal(signal.SIGTERM)
    scraped.fleets.wait_for_log("draining 1 nodes")
    assert scraped.value("task_run_seconds_count", task=f"{project.name}.wait") == 0
    flag.touch()
    assert scraped.fleets.wait(30) == 0
    with pytest.raises(urllib.error.URLError):
        scraped.samples()


def test_a_taken_port_ends_the_autoscaler_before_it_starts_anything(project: Project) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        fleets = Fleets(project, "--metrics-port", str(port))
        try:
            assert fleets.wait(30) == 1
        finally:
            fleets.kill()
    assert f"--metrics-port {port}" in fleets.log()
    assert "another port" in fleets.log()
    assert nodes_of(project) == []
    assert not list((project.folder / "state").rglob("*")), "no state folder, no template"
