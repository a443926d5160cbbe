"""Where the inputs of a map are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from celery_concurrent.errors import PublishError

if TYPE_CHECKING:
    from celery_concurrent.bulk.sending import Chunk


PLACES: Final = ("published", "uncertain", "refused")


class Account:
    """Handles by the inputs' numbers.

    A number that is nowhere was not sent, or its result was handed out.

    Ctrl-C may strike between any two steps, and others may look at any time. So a chunk is
    followed from before it leaves until all of it is booked, and who looks (:meth:`seen`) adds
    what the chunk itself says. Only who publishes books.
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
        """Book what has become of the chunk, which has left or never will."""
        for place, number, handle in self._of_chunk():
            getattr(self, place)[number] = handle
        self._followed = None

    def seen(self) -> dict[str, dict[int, Any]]:
        """Where everything is at this moment, each number in one place; changes nothing."""
        of_chunk = list(self._of_chunk())  # before the others: it may be booked meanwhile
        seen = {place: dict(getattr(self, place)) for place in PLACES}
        for place, number, handle in of_chunk:
            seen[place].setdefault(number, handle)
        for number in seen["published"].keys() & seen["uncertain"].keys():
            del seen["uncertain"][number]  # one that is published by itself, and half booked
        return seen

    def _of_chunk(self) -> Iterator[tuple[str, int, Any]]:
        if self._followed is None:
            return
        chunk, numbers, handle = self._followed
        for number, (input_id, place) in zip(numbers, chunk.places(), strict=False):
            if place != "unsent":
                yield place, number, handle(input_id)

    def error(self, message: str) -> PublishError:
        """An error that says where everything is."""
        return PublishError(
            message, **{place: handles.values() for place, handles in self.seen().items()}
        )
