"""What Flower shows of a real fleet, and what its controls do to it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from celery.exceptions import TaskRevokedError

from tests.services.fixtures import MakeProject, StartNode
from tests.services.fleets import Fleets, end_nodes
from tests.services.flower import AUTH, LOGIN, Flower, StartFlower
from tests.services.openapi import check
from tests.services.project import Broker, Project
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: The fleet of "q" has an autoscaler; nodes of "by/hand" are started by hand.
APP = """
    import asyncio
    import logging
    from pathlib import Path

    from celery import Celery
    from celery_concurrent import concurrent, scaling

    app = Celery()

    @app.task(queue="q", name="shop.wait")
    @scaling(min_nodes=1, max_nodes=3, scaledown_window=2)
    @concurrent(max_inputs=4, target_inputs=2)
    async def wait(flag):
        logging.getLogger("shop").warning("waits for <b>%s</b>", Path(flag).name)
        while not Path(flag).exists():
            await asyncio.sleep(0.05)
        return Path(flag).name

    @app.task(queue="by/hand", name="shop.hand")
    @scaling(max_nodes=0)
    @concurrent(max_inputs=3)
    async def hand(): ...
"""


@pytest.fixture(scope="module")
def project(module_project: MakeProject, module_redis_broker: Broker) -> Project:
    return module_project(APP, broker=module_redis_broker)


@pytest.fixture(scope="module")
def fleets(project: Project) -> Iterator[Fleets]:
    started = Fleets(project)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.kill()
        end_nodes(project)


@pytest.fixture(scope="module")
def flower(project: Project, fleets: Fleets, module_flower: StartFlower) -> Flower:
    started = module_flower(project, f"--basic-auth={LOGIN}")
    wait_until_kept(started)
    return started


Hold = Callable[[str], Any]


@pytest.fixture
def hold(project: Project, tmp_path: Path) -> Iterator[Hold]:
    """Publishes inputs that run until the file of this name is there; it is, after the test."""
    flags: set[Path] = set()

    def publish(name: str) -> Any:
        flags.add(tmp_path / name)
        return project.tasks.wait.delay(str(tmp_path / name))

    yield publish
    for flag in flags:
        flag.touch()


@pytest.fixture
def client(flower: Flower) -> Iterator[httpx.Client]:
    """A program that is logged in; each answer is compared with the API's description."""
    with flower.client(auth=AUTH, event_hooks={"response": [check]}) as made:
        yield made


def wait_until_kept(flower: Flower) -> None:
    """Return when Flower has heard the autoscaler tell of its fleets, of each by itself."""
    with flower.client(auth=AUTH) as client:

        def look() -> bool:
            told = client.get("/api/fleet").json()
            kept = {each["queue"] for each in told["fleets"] if each["kept"]}
            return bool(told["autoscalers"]) and "q" in kept

        wait_for(look, 20.0, what=flower.log_tail)


def fleet_of(client: httpx.Client, queue: str = "q") -> dict[str, Any]:
    answer = client.get(f"/api/fleet/{quote(queue, safe='')}", params={"seconds": 300})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_for_fleet(
    client: httpx.Client, holds: Callable[[dict[str, Any]], bool], timeout: float = 30.0
) -> dict[str, Any]:
    """The first answer for which ``holds`` is true."""
    seen: dict[str, Any] = {}

    def look() -> bool:
        seen.clear()
        seen.update(fleet_of(client))
        return holds(seen)

    wait_for(look, timeout, what=lambda: f"the fleet; it is {seen}")
    return seen


def ready_nodes(detail: dict[str, Any]) -> list[str]:
    """Those that are ready, and that their autoscaler has told of."""
    return [n["name"] for n in detail["nodes"] if n["state"] == "ready" and n["kept"]]


def post(client: httpx.Client, path: str, body: Any = None) -> dict[str, Any]:
    answer = client.post(path, json={} if body is None else body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_fleet_its_nodes_inputs_and_lines_are_shown(
    client: httpx.Client, hold: Hold, tmp_path: Path
) -> None:
    flags = [tmp_path / "first", tmp_path / "second"]
    results = [hold(flag.name) for flag in flags]
    detail = wait_for_fleet(client, lambda seen: seen["fleet"]["running"] == 2)
    fleet = detail["fleet"]
    assert (fleet["kept"], fleet["silent"], fleet["state"]) == (True, False, "ok")
    assert (fleet["target_inputs"], fleet["max_inputs"]) == (2, 4)
    assert fleet["knobs"]["max_nodes"] == 3
    assert fleet["decisions"][0]["cause"] == "demand" or fleet["decisions"][0]["before"] == 0
    overview = client.get("/api/fleet").json()
    assert {"q", "by/hand"} >= {each["queue"] for each in overview["fleets"]} > set()
    assert overview["autoscalers"][0]["queues"] == ["by/hand", "q"]

    names = wait_for(
        lambda: [node["name"] for node in fleet_of(client)["nodes"] if node["running"]]
    )
    inputs: dict[str, str] = {}
    for name in names:
        told = client.get(f"/api/fleet/node/{name}").json()
        assert told["inputs_error"] is None
        assert told["inputs_total"] == len(told["inputs"])
        assert {each["task"] for each in told["inputs"]} == {"shop.wait"}
        inputs |= {each["id"]: name for each in told["inputs"] if each["state"] == "running"}
    assert inputs.keys() == {result.id for result in results}

    for result, flag in zip(results, flags, strict=True):
        log = client.get(f"/api/input/{result.id}/log?node={inputs[result.id]}").json()
        assert log["error"] is None
        texts = [line["text"] for line in log["lines"]]
        assert any(f"waits for <b>{flag.name}</b>" in text for text in texts), log
        others = {each.name for each in flags} - {flag.name}
        assert not any(other in text for text in texts for other in others), log
        flag.touch()
    assert {result.get(timeout=20) for result in results} == {"first", "second"}


def test_the_page_has_the_same_data_as_the_api(client: httpx.Client) -> None:
    [name] = wait_for(lambda: ready_nodes(fleet_of(client))[:1])
    for page, api in (
        ("/fleet/data", "/api/fleet"),
        ("/fleet/data/fleet/q", "/api/fleet/q"),
        (f"/fleet/data/node/{name}", f"/api/fleet/node/{name}"),
        (f"/fleet/data/input/x/log?node={name}", f"/api/input/x/log?node={name}"),
    ):
        assert client.get(page).json().keys() == client.get(api).json().keys()


def test_a_flower_that_has_just_started_shows_what_was_before_it(
    client: httpx.Client, hold: Hold, project: Project, module_flower: StartFlower
) -> None:
    for number in range(3):
        hold(f"earlier-{number}")
    # Kept: it is in a sample, and a later second has another one.
    wait_for_fleet(client, lambda seen: 3 in seen["history"]["running"][:-1])
    younger = module_flower(project, f"--basic-auth={LOGIN}")
    began = time.time()
    wait_until_kept(younger)
    with younger.client(auth=AUTH) as other:

        def from_before() -> list[int]:
            told = fleet_of(other)["history"]
            rows = zip(told["at"], told["running"], strict=True)
            return [running for at, running in rows if at < began - 1]

        wait_for(lambda: 3 in from_before(), what=lambda: f"the history: {from_before()}")


def test_metrics_tell_of_the_fleet(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    assert 'celery_concurrent_fleet_max_nodes{queue="q"}' in text
    assert "flower_events_total" in text


def test_knobs_are_changed_and_taken_back(client: httpx.Client, fleets: Fleets) -> None:
    told = post(client, "/api/fleet/q", {"values": {"max_nodes": 2, "buffer_nodes": 1}})
    assert told["overrides"] == {"max_nodes": 2, "buffer_nodes": 1}
    assert "max_nodes=2" in told["message"]
    fleets.wait_for_status("q", lambda s: s["knobs"]["max_nodes"] == 2)
    wait_for_fleet(client, lambda seen: seen["fleet"]["overrides"] == told["overrides"])
    assert post(client, "/api/fleet/q", {"values": {"buffer_nodes": None}})["overrides"] == {
        "max_nodes": 2
    }
    assert post(client, "/api/fleet/q", {"reset": True})["overrides"] == {}
    fleets.wait_for_status("q", lambda s: s["knobs"]["max_nodes"] == 3)
    wait_for_fleet(client, lambda seen: seen["fleet"]["overrides"] == {})


def test_what_the_autoscaler_refuses_is_told_in_its_words(client: httpx.Client) -> None:
    answer = client.post("/api/fleet/q", json={"values": {"min_nodes": 9}})
    assert answer.status_code == 409
    assert "min_nodes=9 must not exceed max_nodes=3" in answer.json()["error"]
    assert fleet_of(client)["fleet"]["overrides"] == {}


def test_a_fleet_is_drained_and_resumed(client: httpx.Client, fleets: Fleets) -> None:
    assert "drains until it is resumed" in post(client, "/api/fleet/q/drain")["message"]
    fleets.wait_for_status("q", lambda s: s["state"] == "drained" and not s["nodes"])
    wait_for_fleet(client, lambda seen: not seen["nodes"])
    assert "follows its demand again" in post(client, "/api/fleet/q/resume")["message"]
    fleets.wait_for_status("q", lambda s: s["counts"]["ready"] == 1)


@pytest.mark.parametrize(
    ("order", "was"), [("drain", "exit_code=0 was=draining"), ("stop", "exit_code=")]
)
def test_a_node_is_made_to_leave_and_another_one_takes_its_place(
    client: httpx.Client, fleets: Fleets, order: str, was: str
) -> None:
    [name] = wait_for(lambda: ready_nodes(fleet_of(client))[:1])
    assert f"node '{name}'" in post(client, f"/api/fleet/node/{name}/{order}")["message"]
    fleets.wait_for_status(
        "q",
        lambda s: s["counts"]["ready"] == 1 and name not in [each["name"] for each in s["nodes"]],
    )
    ended = fleets.lives()[name].ended
    assert ended is not None
    assert was in ended
    wait_for_fleet(client, lambda seen: name not in [node["name"] for node in seen["nodes"]])


def test_one_input_is_cancelled_and_its_neighbour_runs_on(
    client: httpx.Client, hold: Hold, tmp_path: Path
) -> None:
    wanted, unwanted = hold("flag"), hold("flag")
    wait_for_fleet(client, lambda seen: seen["fleet"]["running"] == 2)
    assert unwanted.id in post(client, f"/api/input/{unwanted.id}/cancel")["message"]
    with pytest.raises(TaskRevokedError):
        unwanted.get(timeout=20)
    wait_for_fleet(client, lambda seen: seen["fleet"]["running"] == 1)
    (tmp_path / "flag").touch()
    assert wanted.get(timeout=20) == "flag"


def test_a_node_that_was_started_by_hand_can_be_drained_and_no_more(
    client: httpx.Client, project: Project, celery_node: StartNode
) -> None:
    node = celery_node(project, "-Q", "by/hand", name="hand@localhost")
    shown = wait_for(
        lambda: next(
            (each for each in fleet_of(client, "by/hand")["nodes"] if each["state"] == "ready"),
            None,
        )
    )
    assert shown is not None
    assert (shown["name"], shown["kept"], shown["slots"]) == ("hand@localhost", False, 3)
    answer = client.post("/api/fleet/node/hand@localhost/stop")
    assert answer.status_code == 409
    assert "it can be drained" in answer.json()["error"]
    post(client, "/api/fleet/node/hand@localhost/drain")
    assert node.wait(20.0) == 0


def test_flowers_own_page_of_a_worker_shows_slots_and_changes_their_number(
    celery_project: MakeProject,
    redis_broker: Broker,
    celery_node: StartNode,
    start_flower: StartFlower,
) -> None:
    project = celery_project(APP, broker=redis_broker)
    flower = start_flower(project, f"--basic-auth={LOGIN}")
    node = celery_node(project, "-Q", "by/hand")
    with flower.client(auth=AUTH) as client:

        def shows(text: str) -> bool:
            # Each look has Flower ask the node once more.
            return text in client.get(f"/worker/{node.name}").text

        wait_for(lambda: shows("shop.hand: 0 of 3 taken, target 3, max_inputs 3"))
        for order, slots in (("shrink", 1), ("grow", 2)):
            answer = client.post(f"/api/worker/pool/{order}/{node.name}", params={"n": 3 - slots})
            assert answer.status_code == 200, answer.text
            wait_for(lambda: shows(f"0 of {slots} taken, target {slots}, max_inputs 3"))  # noqa: B023


def test_without_an_autoscaler_a_fleet_is_shown_and_takes_no_change(
    celery_project: MakeProject,
    redis_broker: Broker,
    celery_node: StartNode,
    start_flower: StartFlower,
) -> None:
    project = celery_project(APP, broker=redis_broker)
    flower = start_flower(project, f"--basic-auth={LOGIN}")
    celery_node(project, "-Q", "by/hand")
    flower.wait_for_fleet("by%2Fhand", auth=AUTH)
    with flower.client(auth=AUTH, event_hooks={"response": [check]}) as client:
        fleet = fleet_of(client, "by/hand")["fleet"]
        assert (fleet["state"], fleet["kept"], fleet["demand"]) == ("unkept", False, None)
        for path, body in (("", {"values": {"max_nodes": 2}}), ("/drain", {}), ("/resume", {})):
            answer = client.post(f"/api/fleet/by%2Fhand{path}", json=body)
            assert answer.status_code == 409
            assert (
                "no autoscaler has told that it keeps the fleet 'by/hand'" in answer.json()["error"]
            )


def test_an_autoscaler_that_has_gone_does_not_answer_in_time(
    celery_project: MakeProject, redis_broker: Broker, start_flower: StartFlower
) -> None:
    project = celery_project(APP, broker=redis_broker)
    flower = start_flower(project, f"--basic-auth={LOGIN}")
    fleets = Fleets(project)
    try:
        wait_until_kept(flower)
    finally:
        fleets.kill()
        end_nodes(project)
    with flower.client(auth=AUTH, event_hooks={"response": [check]}) as client:
        answer = client.post("/api/fleet/q", json={"values": {"max_nodes": 2}})
        assert answer.status_code == 504
        assert "see that `celery -A app autoscaler` runs" in answer.json()["error"]


def test_a_node_that_does_not_answer_is_shown_without_its_inputs(
    celery_project: MakeProject,
    redis_broker: Broker,
    celery_node: StartNode,
    start_flower: StartFlower,
) -> None:
    project = celery_project(APP, broker=redis_broker)
    flower = start_flower(project, f"--basic-auth={LOGIN}")
    node = celery_node(project, "-Q", "by/hand", name="numb@localhost")
    flower.wait_for_fleet("by%2Fhand", auth=AUTH)
    with flower.client(auth=AUTH, event_hooks={"response": [check]}) as client:
        path = "/api/fleet/node/numb@localhost"
        assert client.get(path).json()["inputs_error"] is None
        node.signal(signal.SIGSTOP)
        told = client.get(path).json()
        assert told["inputs_error"] == "the node has not told its inputs within 2 s"
        assert (told["node"]["slots"], told["inputs"]) == (3, [])
        log = client.get("/api/input/some-id/log?node=numb@localhost").json()
        assert "has not told its log lines within 2 s" in log["error"]
        wait_for(lambda: client.get(path).json()["node"]["silent"], 20.0)
        assert "said nothing for a while" in client.get(path).json()["inputs_error"]


def test_a_broker_that_is_away_is_told_and_no_change_is_lost_in_silence(
    celery_project: MakeProject, private_redis: RedisServer, start_flower: StartFlower
) -> None:
    broker = Broker(kind="redis", url=private_redis.url(), backend=private_redis.url())
    flower = start_flower(celery_project(APP, broker=broker), f"--basic-auth={LOGIN}")
    private_redis.kill()
    with flower.client(auth=AUTH, event_hooks={"response": [check]}) as client:
        answer = client.post("/api/input/some-id/cancel", json={})
        assert answer.status_code == 503
        assert answer.json() == {"error": "Broker or result backend unavailable"}
        assert client.get("/fleet/data").status_code == 200
