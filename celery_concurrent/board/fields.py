"""Reading the fields of an event from anybody: what is of another type counts as not told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

#: Characters of a name at the most: longer ones are nobody's.
NAME_LENGTH: Final = 255
#: Characters of a sentence at the most.
TEXT_LENGTH: Final = 1000
#: Entries of a list or a mapping at the most.
ENTRIES: Final = 10_000
_HALVES: Final = re.compile("[\ud800-\udfff]")
#: Numbers beyond it are nobody's.
LARGEST: Final = 1e300
#: What nobody can have counted: a float, and a browser, hold all numbers up to here.
LARGEST_COUNT: Final = 2**53


def name_of(value: object) -> str | None:
    """A name of a node, queue, task or device; None for what is none."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_LENGTH:
        return None
    # Half a surrogate pair can be in JSON, and in no address and no metric.
    return value if value.isascii() or not _HALVES.search(value) else None


def names_of(value: object) -> list[str]:
    """Names, less what is none."""
    return [name for each in _list(value) if (name := name_of(each)) is not None]


def text_of(value: object) -> str | None:
    """A sentence, cut where it is too long."""
    return value[:TEXT_LENGTH] if isinstance(value, str) else None


def count_of(value: object) -> int:
    """A number of things, 0 for what is none."""
    return value if is_count(value) else 0  # type: ignore[return-value]  # it is an int there


def maybe_count(value: object) -> int | None:
    """A number of things, None for what is none."""
    return value if is_count(value) else None  # type: ignore[return-value]  # it is an int there


def number_of(value: object) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Not math.isfinite: an int may be too large for it.
    return value if -LARGEST <= value <= LARGEST else None


def mapping_of(value: object) -> Mapping[str, Any]:
    """A mapping with names as keys, less the other keys."""
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in list(value.items())[:ENTRIES] if name_of(key) is not None}


def mappings_of(value: object) -> list[Mapping[str, Any]]:
    """A list of mappings, less what is none."""
    return [each for each in _list(value) if isinstance(each, dict)]


def scalars_of(value: object) -> dict[str, Any]:
    """What a mapping says in numbers, flags and sentences."""
    return {
        key: text_of(each) if isinstance(each, str) else each
        for key, each in mapping_of(value).items()
        if each is None or isinstance(each, (bool, str)) or number_of(each) is not None
    }


def _list(value: object) -> list[Any]:
    return value[:ENTRIES] if isinstance(value, list) else []


def is_count(value: object) -> bool:
    """Whether it is a number of things."""
    return type(value) is int and 0 <= value <= LARGEST_COUNT
