"""How the Fleet page looks, and what it makes of hostile names and of very many nodes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.services.browser import OpenWindow
from tests.services.fixtures import MakeProject, StartNode
from tests.services.flower import Flower, StartFlower
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(120)]

#: Each tries to leave its place in another way.
HOSTILE = '"><img src=x onerror="hacked=1"></script><script>hacked=1</script>'
QUOTES = "'`${hacked=1}`\\\"onfocus=hacked=1 autofocus "
LAYOUT = Path(__file__).parents[1].joinpath("services", "layout.js").read_text()

SOURCE = f"""
    import logging, time
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent

    app = Celery()

    @app.task(queue={HOSTILE!r}, name={HOSTILE!r})
    @concurrent(max_inputs=4, target_inputs=2)
    def work(flag):
        logger = logging.getLogger({QUOTES!r})
        try:
            raise ValueError({HOSTILE!r})
        except ValueError:
            logger.exception("%s", {HOSTILE!r})
        while not Path(flag).exists():
            time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def project(module_project: MakeProject, module_redis_broker: Broker) -> Project:
    return module_project(SOURCE, broker=module_redis_broker)


@pytest.fixture(scope="module")
def flower(project: Project, module_flower: StartFlower) -> Flower:
    return module_flower(project, env={"FLOWER_UNAUTHENTICATED_API": "1"})


class Announcer:
    """Sends what autoscalers and nodes send, as anybody can who reaches the broker."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def fleet(self, queue: str, *, at: float, nodes: int = 2, **fields: Any) -> None:
        """A fleet of so many ready nodes."""
        told = {
            "queue": queue,
            "state": "ok",
            "tasks": [f"{queue}.task"],
            "target_inputs": 8,
            "max_inputs": 10,
            "knobs": {"min_nodes": 1, "max_nodes": 9, "buffer_nodes": 0, "policy": "hold"},
            "overrides": {},
            "demand": 15,
            "backlog": 2,
            "reserved": 1,
            "running": 12,
            "desired": nodes,
            "reason": "15 inputs at 8 per node: 2 wanted",
            "counts": {"starting": 0, "ready": nodes, "draining": 0},
            "decisions": [
                {"at": at - 40, "before": 1, "after": 2, "reason": "15 inputs", "cause": "demand"},
                {"at": at - 20, "before": 2, "after": 1, "reason": HOSTILE, "cause": "unneeded"},
            ],
            "nodes": [{"name": f"{queue}-{n}@host", "state": "ready"} for n in range(nodes)],
            **fields,
        }
        self._dispatcher.send("concurrency-fleet", **told)

    def nodes(self, queue: str, count: int) -> None:
        """What its nodes say."""
        for number in range(count):
            self._dispatcher.hostname = f"{queue}-{number}@host"
            device = {
                "name": "A long name of a device 80GB HBM3",
                "free": 20 * 1024**3,
                "total": 80 * 1024**3,
                "utilisation": 62,
            }
            self._dispatcher.send(
                "concurrency-node",
                state="ready",
                state_age=5.0,
                age=400.0 + number,
                queues=[queue],
                slots=10,
                target=8,
                running=number % 10,
                reserved=1,
                tasks={f"{queue}.task": {"slots": 10, "target": 8, "running": number % 10}},
                devices={f"GPU-{number}": device},
                cpu=time.process_time(),
                rss=400_000_000,
                last_input={"id": "1", "task": f"{queue}.task", "seconds": 3.0},
                note="memory is short: 8 of 10 slots are used" if number == 1 else None,
            )


@contextmanager
def announcing(project: Project) -> Iterator[Announcer]:
    with project.app.connection_for_write() as connection:
        dispatcher = project.app.events.Dispatcher(connection, hostname="autoscaler@host")
        dispatcher.groups.add("concurrency")
        yield Announcer(dispatcher)


@pytest.fixture
def announcer(project: Project) -> Iterator[Announcer]:
    with announcing(project) as found:
        yield found


def address(flower: Flower, **asked: str) -> str:
    return f"{flower.url}/fleet?{urlencode(asked)}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 820, 360])
def test_nothing_overlaps_or_is_cut_off_or_dim(
    flower: Flower, announcer: Announcer, open_window: OpenWindow, theme: str, width: int
) -> None:
    now = time.time()
    announcer.fleet("thumbs", at=now)
    announcer.nodes("thumbs", 3)
    announcer.fleet("failing-fleet-of-a-rather-long-name", at=now, state="failing", crashes=2)
    announcer.fleet(
        "unknown", at=now, demand=None, backlog=None, overrides={"max_nodes": 9}, state="held"
    )
    window = open_window(
        address(flower, queue="thumbs"),
        viewport={"width": width, "height": 800},
        color_scheme=theme,
    )
    window.row("nodes-table", "thumbs-2").wait_for()
    window.row("fleets-table", "failing").wait_for()
    window.row("fleets-table", "held").wait_for()
    assert window.page.evaluate("document.documentElement.dataset.bsTheme") == theme
    window.screenshot(f"fleet-{theme}-{width}")
    assert window.page.evaluate(LAYOUT) == []
    window.page.goto(address(flower, queue="unknown"))
    window.wait_for_text("fleet-overrides", "max_nodes=9")
    assert window.page.evaluate(LAYOUT) == []
    window.page.goto(address(flower, queue="thumbs", node="thumbs-1@host"))
    window.wait_for_text("node-note", "memory is short")
    window.screenshot(f"node-{theme}-{width}")
    assert window.page.evaluate(LAYOUT) == []


def test_the_check_of_the_layout_sees_what_is_wrong(
    flower: Flower, announcer: Announcer, open_window: OpenWindow
) -> None:
    announcer.fleet("thumbs", at=time.time())
    window = open_window(address(flower, queue="thumbs"))
    window.wait_for_text("fleet-name", "thumbs")
    for style, fault in (
        ("#fleet-tasks { position: relative; top: -2rem }", "overlap"),
        ("#fleet-tasks { color: #aaa }", "contrast"),
        (".metric-grid { width: 120rem }", "sideways"),
    ):
        # The style sheet of the page, as its policy lets no other one in.
        window.page.evaluate(
            "style => document.querySelector('link[href*=fleet]').sheet.insertRule(style)", style
        )
        found = window.page.evaluate(LAYOUT)
        assert any(fault in each for each in found), (fault, found)
        window.page.evaluate("document.querySelector('link[href*=fleet]').sheet.deleteRule(0)")


def test_hostile_names_lines_and_reasons_run_no_script(
    project: Project,
    flower: Flower,
    module_node: StartNode,
    open_window: OpenWindow,
    announcer: Announcer,
    tmp_path: Path,
) -> None:
    node = module_node(project, "-Q", HOSTILE)
    flag = tmp_path / "flag"
    input = project.tasks.work.delay(str(flag))
    window = open_window(address(flower, queue=HOSTILE))
    window.row("nodes-table", node.name).get_by_role("link").click()
    window.row("inputs-table", input.id).get_by_role("button", name="Log").click()
    told = window.wait_for_text("fleet-log-lines", "ValueError")
    assert HOSTILE in told
    assert QUOTES.strip() in told
    assert window.get("fleet-log-title").inner_text() == HOSTILE
    window.page.keyboard.press("Escape")
    window.row("inputs-table", input.id).get_by_role("button", name="Cancel").click()
    assert HOSTILE in window.confirm()
    flag.touch()
    for queue in (HOSTILE, QUOTES):
        announcer.fleet(
            queue,
            at=time.time(),
            state=HOSTILE,
            reason=HOSTILE,
            missing=HOSTILE,
            tasks=[HOSTILE, QUOTES],
            crashes=2,
            last_lines=[HOSTILE, QUOTES],
            overrides={HOSTILE: HOSTILE},
            knobs={HOSTILE: QUOTES, "max_nodes": HOSTILE},
        )
        window.page.goto(address(flower, queue=queue))
        window.wait_for_text("fleet-last-lines", "onfocus")
        assert window.get("fleet-name").inner_text() == " ".join(queue.split())
        window.page.locator(".chart-mark-drain").first.focus()
        assert HOSTILE in window.get("chart-tip").inner_text()
        window.get("fleet-drain").click()
        window.page.keyboard.press("Escape")
    assert window.page.evaluate("typeof hacked") == "undefined"
    assert window.page.locator("#fleet-page img, #fleet-page script, dialog img").count() == 0


def test_an_hour_is_shown_when_it_is_asked_for(
    flower: Flower, announcer: Announcer, open_window: OpenWindow
) -> None:
    announcer.fleet("thumbs", at=time.time())
    window = open_window(address(flower, queue="thumbs"))
    window.wait_for_text("fleet-name", "thumbs")
    with window.page.expect_request(re.compile("data/fleet/thumbs.*seconds=3600")):
        window.page.get_by_text("1 hour").click()
    assert window.page.url.endswith("?queue=thumbs&seconds=3600")
    window.page.reload()
    window.wait_for_text("fleet-name", "thumbs")
    assert window.page.get_by_label("1 hour").is_checked()


def test_a_hundred_fleets_and_a_thousand_nodes_stay_usable(
    project: Project, flower: Flower, announcer: Announcer, open_window: OpenWindow
) -> None:
    many = [f"queue-{number:03}" for number in range(100)]
    now = time.time()
    for queue in many:
        announcer.fleet(queue, at=now)
    announcer.fleet("queue-000", at=now, nodes=1000, desired=1000)
    announcer.nodes("queue-000", 1000)
    window = open_window(address(flower, queue="queue-000"))
    window.wait_for_text("nodes-count", "1,000")
    assert window.page.locator("#fleets-table tbody tr").count() == 25
    assert window.page.locator("#nodes-table tbody tr").count() == 50
    window.get("nodes-pager").get_by_role("button", name="Next nodes").click()
    window.wait_for_text("nodes-pager", "51–100 of 1,000 nodes")
    window.get("nodes-search").fill("-777@")
    window.wait_for_text("nodes-count", "^1$")
    window.get("fleets-search").fill("queue-09")
    wait_for(lambda: window.page.locator("#fleets-table tbody tr").count() == 10, what="the found")
    window.row("fleets-table", "queue-097").get_by_role("link").click()
    window.wait_for_text("fleet-name", "queue-097")
    assert window.get("nodes-search").input_value() == ""
    window.screenshot("fleet-many")
