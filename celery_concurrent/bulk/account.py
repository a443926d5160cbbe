"""Where the inputs of a map are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from celery_concurrent.errors import PublishError

if TYPE_CHECKING:
    from celery_concurrent.bulk.sending import Chunk


class Account:
    """Handles by the inputs' numbers; each number is in one place at the most.

    A number that is nowhere was not sent, or its result was handed out.

    Ctrl-C may strike between any two steps. So a chunk is followed from before it leaves, and
    until all of it is booked: who reads the account after a break settles it first.
    """

    def __init__(self) -> None:
        self.published: dict[int, Any] = {}
        self.uncertain: dict[int, Any] = {}
        self.refused: dict[int, Any] = {}
        self._followed: tuple[Chunk, Sequence[int], Callable[[str], Any]] | None = None

    def follow(self, chunk: Chunk, numbers: Sequence[int], handle: Callable[[str], Any]) -> None:
        """A chunk is about to leave.

        Args:
            chunk: knows the place of each of its inputs, at any time.
            numbers: the inputs' numbers, in the chunk's order.
            handle: makes an input's handle of its id.
        """
        self._followed = chunk, numbers, handle

    def settle(self) -> None:
        """Book what has become of the chunk that left last. Idempotent, also when broken off."""
        for number in self.published.keys() & self.uncertain.keys():
            del self.uncertain[number]  # it was told of one by one, and half booked
        if self._followed is None:
            return
        chunk, numbers, handle = self._followed
        for number, (input_id, place) in zip(numbers, chunk.places(), strict=False):
            if place != "unsent":
                getattr(self, place)[number] = handle(input_id)
        self._followed = None

    def error(self, message: str) -> PublishError:
        """An error that says where everything is."""
        self.settle()
        return PublishError(
            message,
            published=self.published.values(),
            uncertain=self.uncertain.values(),
            refused=self.refused.values(),
        )
