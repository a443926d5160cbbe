"""The knobs of a fleet: what they refuse, and how layers of them are merged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from celery_concurrent import ConfigurationError, Knobs
from celery_concurrent.knobs import NAMES, OLDER, Layer, merged, said

COUNTS = ("min_nodes", "max_nodes", "buffer_nodes", "gpus", "nodes_per_gpu")


def layer(source: str, values: dict[str, Any]) -> Layer:
    return Layer.of("fetch", source, values)


def refused(values: dict[str, Any]) -> str:
    """Why these values are refused, singly and as a whole alike."""
    with pytest.raises(ConfigurationError) as caught:
        merged("fetch", [layer("there", values)])
    return str(caught.value)


def test_the_defaults_are_those_that_the_reference_names() -> None:
    assert Knobs() == Knobs(
        min_nodes=0,
        max_nodes=10,
        buffer_nodes=0,
        scaledown_window=60.0,
        gpus=0,
        nodes_per_gpu=1,
        policy="hold",
        price=3.0,
    )


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, 1.0, "1", [1]])
def test_a_count_that_is_no_int_is_named_with_its_type_and_the_remedy(
    name: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Knobs(**{name: value})
    told = f"{name}={value!r} must be an int, not {type(value).__name__}. Write it as a whole"
    assert str(caught.value).startswith(told)
    assert refused({name: value}).startswith(f"fleet 'fetch', there: {told}")


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_below_its_least_is_refused(name: str) -> None:
    least = 1 if name == "nodes_per_gpu" else 0
    given: dict[str, Any] = {name: least - 1}
    told = f"{name}={least - 1} must be {least} or more. Use {name}={least}"
    with pytest.raises(ConfigurationError, match=told):
        Knobs(**given)
    assert told in refused(given)


@pytest.mark.parametrize("name", ["scaledown_window", "price"])
@pytest.mark.parametrize("value", [True, "60", [60]])
def test_a_number_that_is_none_is_named_with_its_type(name: str, value: Any) -> None:
    assert f"{name}={value!r} must be a number, not {type(value).__name__}" in refused(
        {name: value}
    )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(("scaledown_window", value, "0 or more") for value in (-1, -0.5, math.inf, math.nan)),
        *(("price", value, "above 0") for value in (0, -1, math.inf, math.nan)),
    ],
)
def test_a_number_out_of_range_is_named_with_the_rule(name: str, value: float, rule: str) -> None:
    assert f"{name}={value!r} must be finite and {rule}" in refused({name: value})


def test_no_window_and_a_paused_fleet_are_values() -> None:
    knobs = Knobs(scaledown_window=0, max_nodes=0)
    assert (knobs.scaledown_window, knobs.max_nodes) == (0, 0)


@pytest.mark.parametrize("value", ["Hold", "break_even", 3, True])
def test_a_policy_that_there_is_not_is_refused_with_those_that_there_are(value: Any) -> None:
    assert f'policy={value!r} must be "hold" or "break-even"' in refused({"policy": value})


def test_a_misspelt_policy_is_told_the_nearest() -> None:
    assert refused({"policy": "brake-even"}).endswith("did you mean break-even?")


def test_more_nodes_at_least_than_at_most_are_refused() -> None:
    assert "min_nodes=5 must not exceed max_nodes=4. Raise max_nodes" in refused(
        {"min_nodes": 5, "max_nodes": 4}
    )
    assert "min_nodes=11 must not exceed max_nodes=10" in refused({"min_nodes": 11})


def test_several_devices_of_a_node_and_several_nodes_of_a_device_exclude_each_other() -> None:
    assert "nodes_per_gpu=2 must be 1 where gpus=2" in refused({"gpus": 2, "nodes_per_gpu": 2})


def test_nodes_that_share_a_device_need_one() -> None:
    assert "nodes_per_gpu=2 needs gpus: write gpus=1" in refused({"nodes_per_gpu": 2})


def test_a_machine_without_devices_may_say_so_above_the_decorator() -> None:
    layers = [
        layer("@scaling", {"gpus": 1, "nodes_per_gpu": 2}),
        layer("the command line", {"gpus": 0}),
    ]
    assert merged("fetch", layers) == Knobs(gpus=0, nodes_per_gpu=2)


@pytest.mark.parametrize(
    ("name", "near"),
    [("min_node", "min_nodes"), ("scaledown", "scaledown_window"), ("maxcontainers", "max_contai")],
)
def test_an_unknown_knob_is_told_the_nearest(name: str, near: str) -> None:
    told = refused({name: 3})
    assert told.startswith(f"fleet 'fetch', there: {name}=3 is no knob of a fleet; did you mean ")
    assert f"did you mean {near}" in told
    assert told.endswith(f"The knobs are {', '.join(NAMES)}.")


def test_what_is_near_to_no_knob_is_told_them_all() -> None:
    assert "zzz=3 is no knob of a fleet. The knobs are min_nodes, max_nodes" in refused({"zzz": 3})


def test_the_strongest_layer_that_names_a_knob_has_it() -> None:
    layers = [
        layer("@scaling", {"min_nodes": 1, "max_nodes": 4, "gpus": 1}),
        layer("concurrent_fleets", {"max_nodes": 6, "price": None}),
        layer("the command line", {"max_nodes": None, "price": 2}),
        layer("overrides", {"min_nodes": 0}),
    ]
    assert merged("fetch", layers) == Knobs(min_nodes=0, max_nodes=6, gpus=1, price=2)


def test_values_that_do_not_go_together_are_told_with_where_they_stand() -> None:
    layers = [
        layer("@scaling of shop.fetch", {"max_nodes": 4}),
        layer("concurrent_fleets", {"min_nodes": 6}),
    ]
    with pytest.raises(ConfigurationError) as caught:
        merged("fetch", layers)
    told = str(caught.value)
    assert told.startswith("fleet 'fetch': min_nodes=6 must not exceed max_nodes=4.")
    assert told.endswith(
        "(max_nodes from @scaling of shop.fetch, min_nodes from concurrent_fleets)"
    )


def test_a_wrong_value_is_refused_though_a_stronger_layer_replaces_it() -> None:
    with pytest.raises(ConfigurationError, match="fleet 'fetch', concurrent_fleets: max_nodes='4'"):
        merged(
            "fetch",
            [
                layer("concurrent_fleets", {"max_nodes": "4"}),
                layer("the command line", {"max_nodes": 4}),
            ],
        )


@pytest.mark.parametrize(("older", "name"), OLDER.items())
def test_the_older_names_work_and_warn(older: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{older}=2 is an older name: write {name}=2"):
        assert said({older: 2}) == {name: 2}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_error_calls_a_knob_as_the_user_did() -> None:
    assert "keep_warm=-1 must be 0 or more" in refused({"keep_warm": -1})
    assert "keep_warm=1 and another name of min_nodes are given: keep min_nodes" in refused(
        {"min_nodes": 1, "keep_warm": 1}
    )


def test_knobs_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Knobs().gpus = 1  # type: ignore[misc]  # that is what is tested
