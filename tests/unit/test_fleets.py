"""The fleets of an app: their limits and knobs, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from celery_concurrent import (
    ConfigurationError,
    Knobs,
    Limits,
    concurrent,
    method,
    scaling,
    service,
)
from celery_concurrent.fleets import findings, fleets_of


def define(
    app: Any, name: str, *, queue: str | None = "q", limits: Any = None, **knobs: Any
) -> Any:
    """A task of the app: concurrent where it has limits, with knobs where it has some."""

    def run() -> None: ...

    task = app.task(name=name, queue=queue)(run)
    if limits is not None:
        concurrent(max_inputs=limits[0], target_inputs=limits[1])(task)
    return scaling(**knobs)(task) if knobs else task


def texts(app: Any) -> list[str]:
    return [finding.text for finding in findings(app)]


def test_there_is_a_fleet_for_each_queue_with_concurrent_tasks(app: Any) -> None:
    define(app, "a", queue="one", limits=(20, 15), max_nodes=4)
    define(app, "b", queue=None, limits=(3, None))
    define(app, "plain", queue="plain")
    fleets = fleets_of(app)
    assert list(fleets) == ["celery", "one"]
    one = fleets["one"]
    assert (one.queue, one.tasks) == ("one", ("a",))
    assert one.limits == Limits(max_inputs=20, target_inputs=15)
    assert one.knobs == Knobs(max_nodes=4)
    assert fleets["celery"].knobs == Knobs()


def test_the_methods_of_a_service_have_its_knobs_and_its_slots_once(app: Any) -> None:
    @scaling(gpus=1)
    @service(app, queue="embed", name="embed")
    @concurrent(max_inputs=8, target_inputs=6)
    class Embed:
        @method
        def one(self) -> None: ...

        @method
        def two(self) -> None: ...

    fleet = fleets_of(app)["embed"]
    assert fleet.tasks == ("embed.one", "embed.two")
    assert fleet.limits == Limits(max_inputs=8, target_inputs=6)
    assert fleet.knobs == Knobs(gpus=1)


def test_a_service_may_have_its_knobs_below(app: Any) -> None:
    @service(app, queue="embed", name="embed")
    @concurrent(max_inputs=8)
    @scaling(max_nodes=3)
    class Embed:
        @method
        def one(self) -> None: ...

    assert fleets_of(app)["embed"].knobs == Knobs(max_nodes=3)


def test_the_limits_of_tasks_on_one_queue_add_up_as_a_nodes_slots_do(app: Any) -> None:
    define(app, "a", limits=(20, 15))
    define(app, "b", limits=(5, None))
    define(app, "plain")
    fleet = fleets_of(app)["q"]
    assert fleet.tasks == ("a", "b")
    assert fleet.limits == Limits(max_inputs=25, target_inputs=20)


@pytest.mark.parametrize(
    ("cap", "expected"),
    [(None, (26, 18)), (0, (26, 18)), (99, (26, 18)), (20, (20, 18)), (1, (2, 2))],
)
def test_worker_concurrency_caps_a_fleets_nodes(
    app: Any, cap: int | None, expected: tuple[int, int]
) -> None:
    app.conf.worker_concurrency = cap
    define(app, "a", limits=(20, 15))
    define(app, "b", limits=(6, 3))
    most, target = expected
    assert fleets_of(app)["q"].limits == Limits(max_inputs=most, target_inputs=target)


def test_settings_options_and_overrides_go_before_the_decorator_in_this_order(app: Any) -> None:
    define(app, "a", limits=(2, 1), min_nodes=1, max_nodes=2, buffer_nodes=1, price=1)
    app.conf.concurrent_fleets = {"q": {"max_nodes": 3, "buffer_nodes": 2, "price": 2}}
    fleet = fleets_of(
        app,
        options={"buffer_nodes": 3, "price": 3.5, "gpus": None},
        overrides={"q": {"price": 4}, "gone": {"max_nodes": 1}},
    )["q"]
    assert fleet.knobs == Knobs(min_nodes=1, max_nodes=3, buffer_nodes=3, price=4)
    assert {
        knob: fleet.source_of(knob) for knob in ("min_nodes", "max_nodes", "buffer_nodes", "price")
    } == {
        "min_nodes": "@scaling of a",
        "max_nodes": "concurrent_fleets",
        "buffer_nodes": "command line",
        "price": "override",
    }
    assert fleet.source_of("gpus") == "default"


def test_overrides_replace_one_another_and_can_be_taken_back(app: Any) -> None:
    define(app, "a", limits=(2, 1), max_nodes=2)
    fleet = fleets_of(app)["q"]
    changed = fleet.overridden({"max_nodes": 8}).overridden({"min_nodes": 1})
    assert changed.knobs == Knobs(min_nodes=1, max_nodes=2)
    assert changed.overridden({}).knobs == fleet.knobs == Knobs(max_nodes=2)
    with pytest.raises(ConfigurationError, match="fleet 'q', override: max_nodes='8' must be"):
        fleet.overridden({"max_nodes": "8"})
    with pytest.raises(ConfigurationError, match="fleet 'q': min_nodes=3 must not exceed"):
        fleet.overridden({"min_nodes": 3})


def test_an_older_name_in_the_settings_works_and_warns(app: Any) -> None:
    define(app, "a", limits=(2, 1))
    app.conf.concurrent_fleets = {"q": {"keep_warm": 2}}
    with pytest.warns(DeprecationWarning, match="write min_nodes=2"):
        fleet = fleets_of(app)["q"]
    assert (fleet.knobs.min_nodes, fleet.source_of("min_nodes")) == (2, "concurrent_fleets")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("q", "concurrent_fleets='q' must be a dict of dicts"),
        ([("q", {})], "must be a dict of dicts, by queue: write concurrent_fleets = "),
        ({"q": 8}, 'must be a dict of dicts, by queue: write concurrent_fleets = {"fetch": {"'),
        ({"Q": {}}, "names 'Q', a queue to which no concurrent task is routed"),
        ({"qq": {}}, "is routed; did you mean q?"),
        ({"q": {"max_node": 2}}, "fleet 'q', concurrent_fleets: max_node=2 is no knob of a fleet"),
        ({"q": {"min_nodes": 11}}, r"fleet 'q': min_nodes=11 must not exceed max_nodes=10"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(app: Any, setting: Any, told: str) -> None:
    define(app, "a", limits=(2, 1))
    app.conf.concurrent_fleets = setting
    with pytest.raises(ConfigurationError) as caught:
        fleets_of(app)
    assert told in str(caught.value)


def test_a_wrong_option_names_the_command_line(app: Any) -> None:
    define(app, "a", limits=(2, 1))
    with pytest.raises(ConfigurationError, match="fleet 'q', command line: gpus=-1 must be 0 or"):
        fleets_of(app, options={"gpus": -1})


def test_equal_tasks_and_queues_of_their_own_are_no_finding(app: Any) -> None:
    define(app, "a", limits=(20, 15), max_nodes=4)
    define(app, "b", limits=(20, 15))
    define(app, "c", queue="other", limits=(1, 1), max_nodes=2)
    define(app, "plain")
    assert findings(app) == []


def test_different_limits_on_one_queue_are_told_with_the_remedy(app: Any) -> None:
    define(app, "a", limits=(20, 15))
    define(app, "b", limits=(20, None))
    (finding,) = findings(app)
    assert finding.queue == "q"
    assert "a has max_inputs=20, target_inputs=15; b has max_inputs=20, targ" in finding.text
    assert "give each a queue of its own" in finding.text
    assert "celery_concurrent.routing.queue_per_task" in finding.text


def test_different_knobs_on_one_queue_are_told_and_the_first_ones_hold(app: Any) -> None:
    define(app, "b", limits=(2, 1), max_nodes=8, gpus=1)
    define(app, "a", limits=(2, 1), max_nodes=4)
    (text,) = texts(app)
    assert "takes the first (max_nodes=4 of a; max_nodes=8 of b)" in text
    assert fleets_of(app)["q"].knobs == Knobs(max_nodes=4, gpus=1)


def test_many_tasks_do_not_make_a_finding_long(app: Any) -> None:
    for number in range(10):
        define(app, f"t{number}", limits=(number + 1, 1))
    (text,) = texts(app)
    assert text.count("max_inputs=") == 3
    assert "; ...)" in text


def test_knobs_of_a_task_that_is_not_concurrent_are_told(app: Any) -> None:
    define(app, "a", max_nodes=2)
    (finding,) = findings(app)
    assert finding.queue == "q"
    assert finding.text.startswith("a has @scaling and no @concurrent")
    assert fleets_of(app) == {}


def test_a_task_whose_queue_cannot_be_told_counts_to_the_default_one_and_is_told(app: Any) -> None:
    def router(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> Any:
        return {"queue": kwargs["tenant"]} if name == "a" else None

    app.conf.task_routes = (router,)
    define(app, "a", queue=None, limits=(2, 1))
    define(app, "b", queue=None, limits=(3, 1))
    (finding,) = findings(app)  # that they differ is not known
    assert finding.queue == "celery"
    assert finding.text.startswith("the queue of a cannot be told without its arguments")
    assert fleets_of(app)["celery"].tasks == ("a", "b")
