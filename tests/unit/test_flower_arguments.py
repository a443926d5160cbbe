"""What a request may ask for, and what it is told when it asks for something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.flower.arguments import LARGEST_BODY, Change, View, body_of, no_body
from celery_concurrent.flower.refusals import RefusalError, unknown


def view(**given: str) -> View:
    return View.of(given.get)


def refused(call: Any, *arguments: Any, **options: Any) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        call(*arguments, **options)
    return caught.value


def test_without_arguments_it_is_the_first_page_of_all_nodes() -> None:
    assert view() == View(seconds=300, page=0, size=50, state="", search="")


def test_empty_arguments_count_as_none() -> None:
    assert view(seconds="", page="", size="", state="", search="") == View()


def test_all_arguments_are_taken() -> None:
    assert view(seconds="3600", page="3", size="500", state="silent", search="<b>&") == View(
        seconds=3600, page=3, size=500, state="silent", search="<b>&"
    )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("size", "0", "size='0' must be a whole number in 1..500"),
        ("size", "501", "size='501' must be a whole number in 1..500"),
        ("size", "1e2", "size='1e2' must be a whole number in 1..500"),
        ("size", "-1", "size='-1' must be a whole number in 1..500"),
        ("size", "1_0", "size='1_0' must be a whole number in 1..500"),
        ("page", "-1", "page='-1' must be a whole number in 0..1000000"),
        ("page", "9" * 5000, "must be a whole number in 0..1000000"),
        ("page", "٣", "must be a whole number"),
        ("seconds", "301", "seconds=301 must be 300 or 3600"),
        ("seconds", "inf", "seconds='inf' must be a whole number in 1..3600"),
        ("state", "busy", "state='busy' must be one of starting, ready, draining, silent"),
        ("search", "x" * 256, "must have 255 characters at most"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value_and_the_rule(
    name: str, value: str, rule: str
) -> None:
    error = refused(view, **{name: value})
    assert error.status == 400
    assert rule in str(error)
    assert len(str(error)) < 250


@given(st.dictionaries(st.sampled_from(["seconds", "page", "size", "state", "search"]), st.text()))
def test_any_argument_is_taken_or_refused(given: dict[str, str]) -> None:
    found: View | int
    try:
        found = View.of(given.get)
    except RefusalError as error:
        found = error.status
    assert found == 400 or (isinstance(found, View) and 1 <= found.size <= 500)


def test_a_change_has_knobs_and_says_whether_it_takes_back_what_was_before() -> None:
    values = {"max_nodes": 8, "scaledown_window": 2.5, "min_nodes": None}
    change = Change.of({"values": values, "reset": True})
    assert (change.values, change.reset) == (values, True)
    assert Change.of({"reset": True}).values == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "nothing to change"),
        ({"values": {}}, "nothing to change"),
        ({"values": [1]}, "values=[1] must be an object of knobs"),
        ({"values": {"max_nodes": 1}, "reset": 1}, "reset=1 must be true or false"),
        ({"values": {"max_node": 1}}, "'max_node' is no knob of a fleet. The knobs are min_nodes"),
        ({"values": {"max_containers": 1}}, "'max_containers' is no knob"),
        ({"values": {"max_nodes": "8"}}, "max_nodes='8' must be an int"),
        ({"values": {"max_nodes": -1}}, "max_nodes=-1 must be 0 or more"),
        ({"values": {"max_nodes": True}}, "max_nodes=True must be an int"),
        ({"values": {"price": float("inf")}}, "price=inf must be finite"),
        ({"value": {}}, "'value' in the body means nothing here: there may be values, reset"),
    ],
)
def test_a_wrong_change_is_named_with_the_remedy(body: dict[str, Any], told: str) -> None:
    error = refused(Change.of, body)
    assert error.status == 400
    assert told in str(error)


def test_a_body_is_a_json_object_and_an_empty_one_is_an_empty_object() -> None:
    assert body_of(b'{"a": [1]}') == {"a": [1]}
    assert body_of(b" \n") == {}
    no_body(b"{}")
    no_body(b"")


@pytest.mark.parametrize(
    ("raw", "status", "told"),
    [
        (b"values=1", 400, "the body is not JSON"),
        (b"[]", 400, "the body is []: send a JSON object"),
        (b"null", 400, "the body is None"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 60_000, 400, "the body is not JSON"),
        (b" " * (LARGEST_BODY + 1), 413, f"{LARGEST_BODY} are read at most"),
    ],
)
def test_another_body_is_refused(raw: bytes, status: int, told: str) -> None:
    error = refused(body_of, raw)
    assert error.status == status
    assert told in str(error)


def test_what_needs_no_body_refuses_one() -> None:
    error = refused(no_body, json.dumps({"force": True}).encode())
    assert "'force' in the body means nothing here: send an empty object, {}" in str(error)


def test_an_unknown_name_is_answered_with_a_few_known_ones() -> None:
    error = unknown("fleet", "x", [f"q{number}" for number in range(7)])
    assert error.status == 404
    assert str(error) == (
        "no fleet 'x' has been heard of; known: 'q0', 'q1', 'q2', 'q3', 'q4' and 2 more"
    )
    assert str(unknown("node", "n", [])).endswith("known: none so far")
