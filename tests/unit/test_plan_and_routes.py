"""Which queues are fetched together, and what the app's routes say of them."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Queue

from celery_concurrent import Limits, concurrent, method, service
from celery_concurrent.routing import groups_by_queue, limits_by_group, queue_of
from celery_concurrent.worker.plan import Lane, lanes

PLAIN = "plain"


def lane(*queues: str, groups: str) -> Lane:
    return Lane(queues=queues, groups=frozenset(groups))


def test_queues_with_groups_of_their_own_have_lanes_of_their_own() -> None:
    assert lanes(["x", "y"], {"x": "a", "y": "b"}, PLAIN) == [
        lane("x", groups="a"),
        lane("y", groups="b"),
    ]


def test_queues_that_share_a_group_share_a_lane() -> None:
    assert lanes(["x", "y", "z"], {"x": "a", "y": "b", "z": "ac"}, PLAIN) == [
        lane("x", "z", groups="ac"),
        lane("y", groups="b"),
    ]


def test_a_queue_may_bring_lanes_together() -> None:
    assert lanes(["x", "y", "z"], {"x": "a", "y": "b", "z": "ab"}, PLAIN) == [
        lane("x", "y", "z", groups="ab")
    ]


def test_queues_without_tasks_are_plain_ones() -> None:
    assert lanes(["x", "y", "z"], {"y": "a"}, PLAIN) == [
        Lane(queues=("x", "z"), groups=frozenset({PLAIN})),
        lane("y", groups="a"),
    ]


def test_queues_that_are_not_consumed_make_no_lane() -> None:
    assert lanes(["x"], {"x": "a", "y": "ab"}, PLAIN) == [lane("x", groups="a")]
    assert lanes([], {"x": "a"}, PLAIN) == []


@pytest.fixture
def routed(app: Any) -> Any:
    @app.task(name="t.own", queue="own")
    @concurrent(max_inputs=2)
    def own() -> None: ...

    @app.task(name="t.routed")
    @concurrent(max_inputs=3)
    def by_route() -> None: ...

    @app.task(name="t.default")
    @concurrent(max_inputs=4)
    async def default() -> None: ...

    @app.task(name="t.plain")
    def plain() -> None: ...

    @service(app, queue="own", name="t.service")
    @concurrent(max_inputs=5)
    class Model:
        @method
        def one(self) -> None: ...

        @method(queue="two")
        def two(self) -> None: ...

    app.conf.task_routes = {"t.routed": {"queue": "elsewhere"}}
    app.finalize()
    return app


def test_the_queue_of_a_task_is_told_by_its_option_its_route_or_the_default(routed: Any) -> None:
    queues = {
        name: queue_of(routed, task) for name, task in routed.tasks.items() if name[:2] == "t."
    }
    assert queues == {
        "t.own": "own",
        "t.routed": "elsewhere",
        "t.default": "celery",
        "t.plain": "celery",
        "t.service.one": "own",
        "t.service.two": "two",
    }


def test_groups_and_limits_are_those_of_the_apps_tasks(routed: Any) -> None:
    assert groups_by_queue(routed, PLAIN) == {
        "own": {"t.own", "t.service"},
        "elsewhere": {"t.routed"},
        "celery": {"t.default", PLAIN},
        "two": {"t.service"},
    }
    assert limits_by_group(routed) == {
        "t.own": Limits(max_inputs=2),
        "t.routed": Limits(max_inputs=3),
        "t.default": Limits(max_inputs=4),
        "t.service": Limits(max_inputs=5),
    }


def test_the_default_queue_is_the_apps(app: Any) -> None:
    app.conf.task_default_queue = "mine"

    @app.task(name="t.default")
    def default() -> None: ...

    assert queue_of(app, default) == "mine"


def test_a_route_to_a_queue_object_is_known_by_its_name(app: Any) -> None:
    app.conf.task_queues = [Queue("wide", routing_key="wide.#")]
    app.conf.task_routes = {"t.*": {"queue": "wide"}}

    @app.task(name="t.wide")
    def wide() -> None: ...

    assert queue_of(app, wide) == "wide"


def test_a_router_that_needs_arguments_leaves_the_default(app: Any) -> None:
    def router(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> Any:
        return {"queue": kwargs["tenant"]}

    app.conf.task_routes = (router,)

    @app.task(name="t.tenant")
    def tenant() -> None: ...

    assert queue_of(app, tenant) == "celery"
