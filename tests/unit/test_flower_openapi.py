"""The API's description is well formed, and names what there is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flower")
pytest.importorskip("jsonschema")

from jsonschema import Draft202012Validator

from celery_concurrent.board import Board
from celery_concurrent.flower import answers
from celery_concurrent.flower.answers import Head
from celery_concurrent.flower.app import _handlers
from celery_concurrent.flower.arguments import HISTORIES, MOST_NODES, STATES, View
from celery_concurrent.knobs import NAMES
from tests.services.openapi import description, validator

METHODS = ("get", "post", "put", "delete")


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method): operation
        for path, methods in description()["paths"].items()
        for method, operation in methods.items()
    }


def test_each_schema_is_one() -> None:
    for schema in description()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_each_reference_leads_somewhere() -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                if name == "$ref":
                    place: Any = description()
                    for word in each.removeprefix("#/").split("/"):
                        place = place[word]
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(description())


def test_every_handler_of_the_api_is_described_and_no_other() -> None:
    served = set()
    for handler in _handlers():
        pattern = handler.regex.pattern.removesuffix("$")
        if not pattern.startswith("/api/"):
            continue
        words = ["{}" if word.startswith("[^") else word for word in _alternatives(pattern)]
        for path in words:
            served |= {
                (path, method) for method in METHODS if _takes(handler.handler_class, method)
            }
    described = {
        ("/".join("{}" if word.startswith("{") else word for word in path.split("/")), method)
        for path, method in operations()
    }
    assert served == described


def _alternatives(pattern: str) -> list[str]:
    """The paths of a pattern, each name in it as ``{}``."""
    pattern = pattern.replace("([^/]+)", "{}")
    if "(" not in pattern:
        return [pattern]
    before, _, rest = pattern.partition("(")
    choice, _, after = rest.partition(")")
    return [f"{before}{word}{after}" for word in choice.split("|")]


def _takes(handler: type, method: str) -> bool:
    from tornado.web import RequestHandler

    return getattr(handler, method) is not getattr(RequestHandler, method)


def test_operations_have_names_of_their_own_and_their_parameters() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    for (path, _), operation in operations().items():
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == {word[1:-1] for word in path.split("/") if word.startswith("{")}, path


def test_the_arguments_are_those_that_are_taken() -> None:
    [_queue, *given] = operations()["/api/fleet/{queue}", "get"]["parameters"]
    schemas = {each["name"]: each["schema"] for each in given}
    assert schemas.keys() == set(View.__slots__)
    assert tuple(schemas["seconds"]["enum"]) == HISTORIES
    assert tuple(schemas["state"]["enum"]) == ("", *STATES)
    assert schemas["size"]["maximum"] == MOST_NODES
    assert schemas["size"]["default"] == View().size


def test_a_change_may_have_every_knob() -> None:
    change = description()["components"]["schemas"]["Change"]["properties"]
    assert tuple(change["values"]["properties"]) == NAMES


def test_an_answer_about_hostile_events_is_still_as_described() -> None:
    board = Board(clock=lambda: 0.0, wall=lambda: 0.0)
    junk: Any = {"<b>": [{}, None, -1, 1e300, "x" * 5000]}
    board.note(
        {
            "type": "concurrency-node",
            "hostname": "</script>@h",
            "state": "ready",
            "queues": ["</script>", 7],
            **dict.fromkeys(("slots", "tasks", "devices", "last_input", "note", "cpu"), junk),
        }
    )
    head = Head(at=0.0, why_no_controls=None)
    [fleet] = board.fleets()
    bodies = {
        "Overview": answers.overview(board, head),
        "FleetDetail": answers.fleet_detail(board, fleet["queue"], View(), head),
        "NodeDetail": answers.node_detail(
            answers.known_node(board, "</script>@h"), {"inputs": [junk]}, None, head
        ),
        "Log": answers.log_of("i", "n", {"lines": [junk, None]}),
    }
    for name, body in bodies.items():
        validator({"$ref": f"#/components/schemas/{name}"}).validate(body)


def test_the_checker_sees_what_is_wrong() -> None:
    validate = validator({"$ref": "#/components/schemas/Log"}).is_valid
    body = answers.log_of("i", "n", {})
    assert validate(body)
    assert not validate({**body, "lines": [{"text": 1}]})
    assert not validate({**body, "more": SimpleNamespace()})
    assert not validate({name: value for name, value in body.items() if name != "dropped"})
