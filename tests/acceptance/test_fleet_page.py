"""The Fleet page in a browser: a real Flower, broker, autoscaler and nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.browser import OpenWindow, Window
from tests.services.fixtures import MakeProject
from tests.services.fleets import Fleets, end_nodes
from tests.services.flower import AUTH, LOGIN, Flower, StartFlower
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for
from tests.services.witness import outcome

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(120)]

SOURCE = """
    import asyncio, logging
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()
    logger = logging.getLogger("shop")

    @app.task(queue="pages")
    @scaling(min_nodes=0, max_nodes=2, scaledown_window=0.5)
    @concurrent(max_inputs=3, target_inputs=2)
    async def read(flag, word):
        count = 0
        while not Path(flag).exists():
            count += 1
            logger.warning("%s %d", word, count)
            await asyncio.sleep(0.1)
        return word
"""
CREDENTIALS = {"username": AUTH[0], "password": AUTH[1]}


class Stage:
    """An app, its autoscaler and its Flower, for all tests of the module."""

    def __init__(self, project: Project, fleets: Fleets, flower: Flower) -> None:
        self.project = project
        self.fleets = fleets
        self.flower = flower

    def publish(self, flag: Path, *words: str) -> list[Any]:
        """Inputs that run until the flag is there."""
        return [self.project.tasks.read.delay(str(flag), word) for word in words]

    def node(self) -> dict[str, Any]:
        """The data of a node that is ready."""
        found: dict[str, Any] = self.flower.wait_for_fleet("pages", auth=AUTH)
        return next(node for node in found["nodes"] if node["state"] == "ready")

    def rest(self) -> None:
        """Return when nothing runs and no node is left, and Flower knows that none is."""
        self.fleets.wait_for_status(
            "pages", lambda status: not status["demand"] and not status["nodes"]
        )
        self.flower.wait_for_fleet("pages", lambda body: not body["nodes"], auth=AUTH)


@pytest.fixture(scope="module")
def module_stage(
    module_project: MakeProject, module_redis_broker: Broker, module_flower: StartFlower
) -> Iterator[Stage]:
    project = module_project(SOURCE, broker=module_redis_broker)
    fleets = Fleets(project)
    try:
        flower = module_flower(project, f"--basic-auth={LOGIN}")
        fleets.wait_until_ready()
        yield Stage(project, fleets, flower)
    finally:
        fleets.kill()
        end_nodes(project)


@pytest.fixture
def stage(module_stage: Stage, flag: Path) -> Iterator[Stage]:
    yield module_stage
    flag.touch()
    module_stage.rest()


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Ends the test's inputs when it is there."""
    return tmp_path / "flag"


@pytest.fixture
def window(stage: Stage, open_window: OpenWindow) -> Window:
    """The page as somebody sees it who is logged in."""
    found = open_window(f"{stage.flower.url}/fleet", http_credentials=CREDENTIALS)
    found.wait_for_text("fleet-name", "pages")
    return found


def test_it_asks_for_the_login(stage: Stage, open_window: OpenWindow) -> None:
    from playwright.sync_api import Error  # missing, it skips the test, and not the module

    window = open_window(f"{stage.flower.url}/healthcheck")
    window.expect_fault("status of 401")
    for place in ("/fleet", "/fleet/data", "/fleet/data/fleet/pages", "/api/fleet"):
        answer = window.page.context.request.get(stage.flower.url + place)
        assert (place, answer.status) == (place, 401)
    # So a browser without a window tells that it was asked, and has no answer.
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        window.page.goto(f"{stage.flower.url}/fleet")


def test_queued_inputs_move_the_chart_and_a_node_appears(
    stage: Stage, window: Window, flag: Path
) -> None:
    window.wait_for_text("nodes-none", "This fleet has no nodes")
    running = window.page.locator("#fleet-figure path.chart-running")
    flat = running.get_attribute("d")
    stage.publish(flag, "a", "b", "c")
    window.wait_for_text("figure-running", "^3$")
    window.wait_for_text("figure-nodes", "^2$")
    wait_for(lambda: running.get_attribute("d") != flat, what="a move of the chart")
    area = running.bounding_box()
    assert area is not None
    assert area["height"] > 50
    window.row("nodes-table", "ready").first.wait_for()
    assert window.page.locator(".chart-mark-start").count() >= 1
    mark = window.page.locator(".chart-mark-start").last
    mark.focus()
    assert "2 per node" in window.get("chart-tip").inner_text()
    window.wait_for_text("decisions-table", "→ 2")
    window.wait_for_text("fleet-summary", "3 inputs: 0 waiting, 0 reserved, 3 running")
    window.screenshot("fleet-light")


def test_cancel_ends_that_input_and_no_other(stage: Stage, window: Window, flag: Path) -> None:
    first, second = stage.publish(flag, "first", "second")
    name = stage.node()["name"]
    window.row("nodes-table", name).get_by_role("link").click()
    window.wait_for_text("inputs-count", "2")
    window.row("inputs-table", second.id).get_by_role("button", name="Cancel").click()
    assert second.id in window.confirm(holds="Cancel this input?")
    window.toast("is being cancelled")
    window.row("inputs-table", second.id).wait_for(state="detached")
    assert window.row("inputs-table", first.id).count() == 1
    assert type(outcome(second)).__name__ == "TaskRevokedError"
    flag.touch()
    assert outcome(first) == "first"


def test_the_log_of_an_input_holds_its_own_lines_alone(
    stage: Stage, window: Window, flag: Path
) -> None:
    apple, pear = stage.publish(flag, "apple", "pear")
    window.row("nodes-table", stage.node()["name"]).get_by_role("link").click()
    for id, own, other in ((apple.id, "apple", "pear"), (pear.id, "pear", "apple")):
        window.row("inputs-table", id).get_by_role("button", name="Log").click()
        window.wait_for_text("fleet-log-lines", f"{own} 5")
        lines = window.page.locator("#fleet-log-lines .fleet-log-text").all_inner_texts()
        assert lines[:3] == [f"{own} 1", f"{own} 2", f"{own} 3"]
        assert other not in window.wait_for_text("fleet-log-lines", own)
        # It goes on while it is open.
        window.wait_for_text("fleet-log-lines", f"{own} {len(lines) + 3}")
        window.page.keyboard.press("Escape")
        assert not window.get("fleet-log").is_visible()


def test_drain_from_the_page_drains_the_node(stage: Stage, window: Window, flag: Path) -> None:
    window.expect_fault("status of 404")
    (result,) = stage.publish(flag, "last")
    name = stage.node()["name"]
    window.row("nodes-table", name).get_by_role("link").click()
    window.get("node-drain").click()
    window.confirm(holds=name)
    window.toast(f"node '?{re.escape(name)}'? drains")
    window.wait_for_text("node-state", "draining")
    flag.touch()
    assert outcome(result) == "last"
    window.wait_for_text("fleet-missing", "has left")
    wait_for(lambda: stage.fleets.lives()[name].ended, what="the node's end")
    assert stage.fleets.lives()[name].ended == "exit_code=0 was=draining"


def test_a_drained_fleet_starts_nothing_until_it_is_resumed(
    stage: Stage, window: Window, flag: Path
) -> None:
    window.get("fleet-drain").click()
    window.confirm(holds="Drain the fleet pages?")
    window.wait_for_text("fleet-state", "drained")
    stage.publish(flag, "late")
    window.wait_for_text("note-demand", "1 waiting")
    window.wait_for_text("figure-desired", "^0$")
    window.get("fleet-resume").click()
    window.confirm()
    window.wait_for_text("figure-running", "^1$")


def test_the_most_nodes_are_changed_by_keyboard_and_reach_the_autoscaler(
    stage: Stage, window: Window
) -> None:
    press = window.page.keyboard.press
    window.get("knob-max_nodes").focus()
    press("Control+a")
    window.page.keyboard.type("5")
    press("Enter")
    assert "max_nodes: 2 → 5" in window.get("fleet-confirm").inner_text()
    press("Enter")
    window.toast("max_nodes=5")
    assert stage.fleets.status("pages")["knobs"]["max_nodes"] == 5
    window.wait_for_text("note-desired", "of 0 to 5")
    window.wait_for_text("fleet-overrides", "max_nodes=5")
    assert window.page.evaluate("document.activeElement.id") == "knob-max_nodes"
    # On to the button that takes it back: spare nodes, window, change, reset.
    for _ in range(4):
        press("Tab")
    assert window.page.evaluate("document.activeElement.id") == "fleet-reset"
    press("Enter")
    press("Enter")
    window.wait_for_text("fleet-overrides", "none")
    assert stage.fleets.status("pages")["overrides"] == {}


def test_a_refused_value_is_told_at_its_field(stage: Stage, window: Window) -> None:
    window.expect_fault("status of 4")
    window.get("knob-min_nodes").fill("7")
    window.get("fleet-change").click()
    window.confirm()
    window.wait_for_text("fleet-settings-error", "min_nodes=7 must not exceed max_nodes=2")
    assert window.get("knob-min_nodes").get_attribute("aria-invalid") == "true"
    assert stage.fleets.status("pages")["overrides"] == {}


def test_updates_leave_focus_typing_and_dialogs_alone(
    stage: Stage, window: Window, flag: Path
) -> None:
    field = window.get("knob-scaledown_window")
    field.fill("12")
    window.get("fleet-drain").click()
    stage.publish(flag, "a")
    window.wait_for_text("figure-running", "^1$")
    assert window.get("fleet-confirm").is_visible()
    window.page.keyboard.press("Escape")
    assert window.page.evaluate("document.activeElement.id") == "fleet-drain"
    link = window.row("nodes-table", "ready").get_by_role("link")
    link.focus()
    shown = window.row("nodes-table", "ready").inner_text()
    wait_for(lambda: window.row("nodes-table", "ready").inner_text() != shown, what="an update")
    assert link.evaluate("link => link === document.activeElement")
    assert field.input_value() == "12"
    assert stage.fleets.status("pages")["state"] == "ok"


def test_the_back_button_leads_back_to_the_fleet(stage: Stage, window: Window, flag: Path) -> None:
    stage.publish(flag, "a")
    name = stage.node()["name"]
    window.row("nodes-table", name).get_by_role("link").click()
    window.wait_for_text("node-name", re.escape(name))
    assert window.page.title() == f"{name} · pages · Fleet · Flower"
    window.page.go_back()
    window.get("fleet-detail").wait_for()
    wait_for(lambda: window.page.title() == "pages · Fleet · Flower", what="the title")
    assert not window.get("node-detail").is_visible()


def test_it_says_that_the_connection_is_lost_and_recovers(window: Window) -> None:
    window.expect_fault("ERR_INTERNET_DISCONNECTED")
    window.page.context.set_offline(True)
    window.wait_for_text("fleet-connection", "Connection lost, trying again")
    window.page.context.set_offline(False)
    window.wait_for_text("fleet-connection", "Live")


def test_it_says_that_answers_stay_away_though_the_connection_stands(window: Window) -> None:
    window.page.context.route("**/fleet/data**", lambda _: None)
    window.wait_for_text("fleet-connection", "Connection lost, trying again")
    window.page.context.unroute("**/fleet/data**")
    window.wait_for_text("fleet-connection", "Live")


def test_below_a_prefix_and_read_only_it_shows_and_changes_nothing(
    stage: Stage, start_flower: StartFlower, open_window: OpenWindow
) -> None:
    flower = start_flower(stage.project, "--url-prefix=/ops/", "--read-only")
    assert flower.url.endswith("/ops")
    window = open_window(f"{flower.url}/fleet")
    window.wait_for_text("fleet-name", "pages")
    window.wait_for_text("fleet-why", "--read-only")
    for control in ("fleet-drain", "fleet-change", "knob-max_nodes"):
        assert window.get(control).is_disabled()
    assert "--read-only" in str(window.get("fleet-drain").get_attribute("title"))
    window.page.get_by_role("link", name="Tasks").click()
    window.page.get_by_role("link", name="Fleet").click()
    window.wait_for_text("fleet-connection", "Live")
