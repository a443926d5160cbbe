"""The API's description, and whether an answer is as it says."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

FILE = Path(__file__).parents[2] / "docs/reference/openapi.json"


@cache
def description() -> dict[str, Any]:
    """docs/reference/openapi.json."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def check(answer: httpx.Response, prefix: str = "") -> None:
    """Compare an answer of the API with its description; other paths are left alone.

    Args:
        answer: read to its end.
        prefix: Flower's ``--url-prefix``, with a slash before it and none behind.

    Raises:
        AssertionError: there is no such operation or status, or the body has another form.
    """
    answer.read()
    path = answer.request.url.raw_path.decode().partition("?")[0].removeprefix(prefix)
    if not re.match(r"/api/(fleet|input)\b", path):
        return
    operation = operation_of(answer.request.method, path)
    told = operation["responses"].get(str(answer.status_code))
    assert told is not None, f"{answer.request.method} {path} may not answer {answer.status_code}"
    [(media, content)] = _resolved(told)["content"].items()
    assert answer.headers["content-type"].lower() == f"{media}; charset=utf-8"
    if media == "application/json":
        validator(content["schema"]).validate(answer.json())


def operation_of(method: str, path: str) -> dict[str, Any]:
    """The operation that this request is; of several paths the one with the most words.

    Raises:
        AssertionError: there is none.
    """
    found = [
        (template.count("{"), operations[method.lower()])
        for template, operations in description()["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) and method.lower() in operations
    ]
    assert found, f"{method} {path} is not described"
    operation: dict[str, Any] = min(found, key=lambda each: each[0])[1]
    return operation


def validator(schema: dict[str, Any]) -> Any:
    """Validates by a schema that may refer to the description's components."""
    return Draft202012Validator({**schema, "components": description()["components"]})


def _resolved(told: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in told:
        return told
    found: dict[str, Any] = description()["components"]["responses"][told["$ref"].split("/")[-1]]
    return found
