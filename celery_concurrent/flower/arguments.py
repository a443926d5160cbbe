"""What a request asks for, checked: each error names the argument, its value and the rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.flower.refusals import RefusalError, shown
from celery_concurrent.knobs import NAMES, said

#: Seconds of history that there are: by the second, and in tens of seconds.
HISTORIES: Final = (300, 3600)
#: States of nodes, as the table is filtered by them.
STATES: Final = ("starting", "ready", "draining", "silent")
MOST_NODES: Final = 500
_PAGES: Final = 1_000_000
_SEARCHED: Final = 255
#: Bytes of a body at the most.
LARGEST_BODY: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be seen of a fleet.

    Args:
        seconds: of its history.
        page: of its nodes, from 0.
        size: nodes on a page.
        state: of the nodes; empty for all.
        search: in the nodes' names, devices and notes, whatever the case; empty for all.
    """

    seconds: int = 300
    page: int = 0
    size: int = 50
    state: str = ""
    search: str = ""

    @classmethod
    def of(cls, argument: Callable[[str], str | None]) -> View:
        """From a request's arguments; ``argument`` gives one by its name, or None.

        Raises:
            RefusalError: one cannot be used.
        """
        seconds = _whole("seconds", argument("seconds"), default=300, least=1, most=3600)
        if seconds not in HISTORIES:
            raise RefusalError(400, f"seconds={seconds} must be 300 or 3600")
        state = argument("state") or ""
        if state and state not in STATES:
            raise RefusalError(
                400, f"state={shown(state)} must be one of {', '.join(STATES)}, or empty"
            )
        search = argument("search") or ""
        if len(search) > _SEARCHED:
            raise RefusalError(
                400, f"search={shown(search)} must have {_SEARCHED} characters at most"
            )
        return cls(
            seconds=seconds,
            page=_whole("page", argument("page"), default=0, least=0, most=_PAGES),
            size=_whole("size", argument("size"), default=50, least=1, most=MOST_NODES),
            state=state,
            search=search,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Knobs of a fleet that are to be set; None takes an override back.

    Args:
        values: by knob.
        reset: whether all overrides of before are taken back first.
    """

    values: Mapping[str, Any]
    reset: bool

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Change:
        """From a request's body.

        Raises:
            RefusalError: it is not one.
        """
        _only(body, "values", "reset")
        values, reset = body.get("values", {}), body.get("reset", False)
        if not isinstance(values, dict):
            raise RefusalError(
                400,
                f'values={shown(values)} must be an object of knobs, as in {{"max_nodes": 8}}',
            )
        if not isinstance(reset, bool):
            raise RefusalError(400, f"reset={shown(reset)} must be true or false")
        if not values and not reset:
            raise RefusalError(
                400, 'nothing to change: name a knob in "values", or take all back by "reset": true'
            )
        for name in values:
            if name not in NAMES:
                raise RefusalError(
                    400, f"{shown(name)} is no knob of a fleet. The knobs are {', '.join(NAMES)}"
                )
        try:
            said(values)
        except ConfigurationError as error:
            raise RefusalError(400, str(error)) from error
        return cls(values=values, reset=reset)


def body_of(raw: bytes) -> dict[str, Any]:
    """A request's body; an empty one is an empty object.

    Raises:
        RefusalError: it is no JSON object, or too large.
    """
    if len(raw) > LARGEST_BODY:
        raise RefusalError(413, f"the body has {len(raw)} bytes; {LARGEST_BODY} are read at most")
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusalError(
            400, f"the body is not JSON ({error}): send an object, such as {{}}"
        ) from None
    if not isinstance(body, dict):
        raise RefusalError(400, f"the body is {shown(body)}: send a JSON object, such as {{}}")
    return body


def no_body(raw: bytes) -> None:
    """For what needs none.

    Raises:
        RefusalError: there is something in it.
    """
    _only(body_of(raw))


def _only(body: Mapping[str, Any], *names: str) -> None:
    for name in body:
        if name not in names:
            allowed = ", ".join(names)
            raise RefusalError(
                400,
                f"{shown(name)} in the body means nothing here: "
                + (f"there may be {allowed}" if names else "send an empty object, {}"),
            )


def _whole(name: str, given: str | None, *, default: int, least: int, most: int) -> int:
    if given is None or given == "":
        return default
    # Not int(): it takes underscores, signs, blanks and the digits of all scripts.
    digits = given.isascii() and given.isdigit() and len(given) <= len(str(most))
    if not digits or not least <= int(given) <= most:
        raise RefusalError(400, f"{name}={shown(given)} must be a whole number in {least}..{most}")
    return int(given)
