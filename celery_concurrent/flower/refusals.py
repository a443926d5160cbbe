"""Requests that are not carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from celery_concurrent.errors import ConcurrencyError

_NAMED: Final = 5
#: Characters of a value that a sentence repeats.
_SHOWN: Final = 80


class RefusalError(ConcurrencyError):
    """A request that is not carried out; its text is a sentence with the remedy.

    It becomes the answer's ``error``, and never leaves this package.

    Args:
        status: HTTP's.
        text: for whoever has sent it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def unknown(kind: str, name: str, names: Iterable[str]) -> RefusalError:
    """There is no such fleet or node; a few of those that there are get named."""
    known = sorted(names)
    told = ", ".join(map(shown, known[:_NAMED]))
    if len(known) > _NAMED:
        told += f" and {len(known) - _NAMED} more"
    return RefusalError(
        404, f"no {kind} {shown(name)} has been heard of; known: {told or 'none so far'}"
    )


def shown(value: object) -> str:
    """A value in a sentence, cut where it is too long."""
    told = repr(value)
    return told if len(told) <= _SHOWN else f"{told[: _SHOWN - 3]}..."
