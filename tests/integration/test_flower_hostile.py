"""Whatever is sent to the broker, Flower's page, its data and its metrics stay whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.services.fixtures import MakeProject
from tests.services.flower import StartFlower
from tests.services.openapi import check
from tests.services.project import Broker, Project
from tests.services.waiting import wait_for

APP = """
    from celery import Celery

    app = Celery()
"""
SCRIPT = "</script><script>alert(1)</script>"
NAMES = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "a/b?c=d#e%2f..",
    "../../etc/passwd",
    "{{ handler.settings }}",
    "line\nbreak\x00\x1b[31m\u2028",
    "ünïcode 🔥",
    "__proto__",
]
#: Values of no type that anybody expects; the last one is no number for a float.
ODD: list[Any] = [None, True, -1, 1e308, "x" * 20_000, [[]], {"a": {}}, [SCRIPT] * 3, 10**400]


@pytest.fixture(scope="module")
def project(module_project: MakeProject, module_redis_broker: Broker) -> Project:
    return module_project(APP, broker=module_redis_broker)


@pytest.fixture(scope="module")
def client(project: Project, module_flower: StartFlower) -> Iterator[httpx.Client]:
    """Of a Flower that has heard them all."""
    flower = module_flower(project, env={"FLOWER_UNAUTHENTICATED_API": "1"})
    with (
        flower.client(event_hooks={"response": [check]}) as made,
        project.app.connection_for_write() as connection,
        project.app.events.Dispatcher(connection, hostname="anybody@h") as dispatcher,
    ):

        def has_heard(queue: str) -> bool:
            # Again and again: a receiver gets only what is sent once it listens.
            send_all(dispatcher)
            dispatcher.hostname = "last@h"
            dispatcher.send("concurrency-node", state="ready", queues=[queue])
            # It may have begun in the midst of them, too.
            heard = {each["queue"] for each in fleets_of(made)}
            return {queue, "odd", "odd-fleet", *NAMES} <= heard

        wait_for(lambda: has_heard("the last one"), 20.0, what=flower.log_tail)
        yield made
    assert "Traceback" not in flower.log()


def send_all(dispatcher: Any) -> None:
    fields = ("slots", "tasks", "devices", "cpu", "age", "last_input", "note", "timing", "outcomes")
    for name in NAMES:
        dispatcher.hostname = name
        dispatcher.send(
            "concurrency-node",
            state="ready",
            queues=[name],
            note=name,
            tasks={name: {"slots": 1}},
            last_input={"id": name, "task": name, "seconds": 1},
            devices={name: {"name": name, "free": 1, "total": 2}},
        )
        dispatcher.send("concurrency-autoscaler", queues=[name], host=name)
    for place, odd in enumerate(ODD):
        dispatcher.hostname = f"odd{place}@h"
        values = dict.fromkeys(fields, odd)
        dispatcher.send("concurrency-node", state="ready", queues=["odd"], **values)
        dispatcher.send("concurrency-node", state=odd, queues=odd)
        for field in ("queue", "counts", "decisions", "nodes", "knobs", "decided", "last_lines"):
            dispatcher.send("concurrency-fleet", **{"queue": "odd-fleet", field: odd})
        dispatcher.send("concurrency-autoscaler", queues=odd, devices=odd, host=odd)
        dispatcher.send("concurrency-unheard-of", odd=odd)


def fleets_of(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/fleet").json()["fleets"]
    return found


def test_no_answer_holds_anything_that_a_page_would_run(client: httpx.Client) -> None:
    pages = ["/fleet", "/fleet/data", "/api/fleet"]
    for name in NAMES:
        quoted = quote(name, safe="")
        pages += [f"/fleet/data/fleet/{quoted}", f"/fleet/data/node/{quoted}"]
        pages += [f"/fleet?queue={quoted}", f"/fleet/data/fleet/nix{quoted}"]
    for page in pages:
        answer = client.get(page)
        assert answer.status_code in (200, 404), page
        assert "alert(1)<" not in answer.text
        assert "<img src=x" not in answer.text
        if page.startswith("/fleet?"):
            assert "alert(1)" not in answer.text
        elif page != "/fleet":
            assert answer.headers["content-type"] == "application/json; charset=UTF-8"
            assert "<" not in answer.text


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_found_again_as_it_is(client: httpx.Client, name: str) -> None:
    quoted = quote(name, safe="")
    detail = client.get(f"/api/fleet/{quoted}").json()
    assert detail["fleet"]["queue"] == name
    [node] = detail["nodes"]
    assert (node["name"], node["note"], node["last_input"]["id"]) == (name, name, name)
    assert client.get(f"/api/fleet/node/{quoted}").json()["node"]["name"] == name


def test_odd_values_leave_whole_answers(client: httpx.Client) -> None:
    names = {each["queue"] for each in fleets_of(client)}
    assert {"odd", "the last one", *NAMES} <= names
    for queue in ("odd", "odd-fleet"):
        text = client.get(f"/api/fleet/{queue}").text
        json.loads(text, parse_constant=pytest.fail)


def test_flowers_own_pages_and_metrics_go_on(client: httpx.Client) -> None:
    assert client.get("/workers").status_code == 200
    metrics = client.get("/metrics")
    assert metrics.status_code == 200
    assert 'celery_concurrent_fleet_idle_slot_seconds_total{queue="the last one"}' in metrics.text


def test_a_name_that_cannot_be_written_does_no_harm(client: httpx.Client, project: Project) -> None:
    """Half of a pair of surrogates: JSON may hold it, and UTF-8 may not."""
    with (
        project.app.connection_for_write() as connection,
        project.app.events.Dispatcher(connection, hostname="half\ud800@h") as dispatcher,
    ):
        dispatcher.send("concurrency-node", state="ready", queues=["half\ud800"])
        dispatcher.hostname = "after@h"
        dispatcher.send("concurrency-node", state="ready", queues=["after"])
    wait_for(lambda: any(each["queue"] == "after" for each in fleets_of(client)))
    assert client.get("/metrics").status_code == 200
    assert client.get("/fleet/data").status_code == 200
