"""The router that gives each concurrent task a queue of its own."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Queue

from celery_concurrent import concurrent, method, service
from celery_concurrent.routing import own_queues, queue_of, queue_per_task

ROUTER = "celery_concurrent.routing.queue_per_task"


@pytest.fixture
def routed(app: Any) -> Any:
    app.conf.task_routes = [ROUTER]

    @app.task(name="t.own")
    @concurrent(max_inputs=2)
    def own() -> None: ...

    @app.task(name="t.named", queue="named")
    @concurrent(max_inputs=2)
    def named() -> None: ...

    @app.task(name="t.exchange", exchange="mine", routing_key="key")
    @concurrent(max_inputs=2)
    def exchange() -> None: ...

    @app.task(name="t.plain")
    def plain() -> None: ...

    @service(app, name="t.Model")
    @concurrent(max_inputs=5)
    class Model:
        @method
        def one(self) -> None: ...

        @method(queue="two")
        def two(self) -> None: ...

        @method
        def three(self) -> None: ...

    app.finalize()
    return app


def test_each_concurrent_task_that_names_no_queue_has_its_own(routed: Any) -> None:
    queues = {
        name: queue_of(routed, task) for name, task in routed.tasks.items() if name[:2] == "t."
    }
    assert queues == {
        "t.own": "t.own",
        "t.named": "named",
        "t.exchange": "celery",  # as Celery itself has it, which looks at its exchange later
        "t.plain": "celery",
        "t.Model.one": "t.Model",
        "t.Model.two": "two",
        "t.Model.three": "t.Model",
    }
    assert own_queues(routed) == ["t.Model", "t.own"]


def test_a_call_that_names_a_queue_goes_there(routed: Any) -> None:
    route = routed.amqp.router.route({"queue": "elsewhere"}, "t.own", task_type=None)
    assert route["queue"].name == "elsewhere"
    assert "t.own" not in routed.amqp.queues


def test_a_call_by_name_is_routed_by_the_task_of_the_current_app(routed: Any) -> None:
    routed.set_current()
    assert queue_per_task("t.own", (), {}, {}) == {"queue": "t.own"}
    assert queue_per_task("t.unknown", (), {}, {}) is None
    assert queue_per_task("t.plain", (), {}, {}) is None


def test_none_for_a_destination_names_none(routed: Any) -> None:
    options = {"queue": None, "exchange": None, "routing_key": None}
    assert queue_per_task("t.own", (), {}, options, task=routed.tasks["t.own"]) is not None


def test_a_router_before_it_has_the_task(routed: Any) -> None:
    routed.conf.task_routes = [{"t.own": "first"}, ROUTER]
    assert queue_of(routed, routed.tasks["t.own"]) == "first"
    assert own_queues(routed) == ["t.Model"]


@pytest.mark.parametrize("routes", [None, {"t.own": "t.own"}, [{"t.*": "all"}]])
def test_an_app_without_it_has_no_own_queues(routed: Any, routes: Any) -> None:
    routed.conf.task_routes = routes
    assert own_queues(routed) == []


def test_where_queues_are_not_made_only_those_that_exist_are_told(routed: Any) -> None:
    routed.conf.update(task_create_missing_queues=False, task_queues=[Queue("t.own")])
    routed.conf.task_routes = [queue_per_task]
    assert own_queues(routed) == ["t.own"]
