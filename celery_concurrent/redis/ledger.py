"""Acknowledgements on their way to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Ledger:
    """Tags whose inputs are settled and whose messages are still registered, in order.

    It outlives connections, for an ack by tag is as good on the next one, and twice the same as
    once. Flushes may overlap: without a hub the settling thread's and that of the consumer which
    closes a connection, and a signal handler's within any. So a tag stays until Redis has
    confirmed it, and no lock is held.
    """

    def __init__(self) -> None:
        self._tags: dict[str, None] = {}
        self._sent: set[str] = set()

    def add(self, tag: str) -> None:
        """An input is settled."""
        self._tags[tag] = None

    @property
    def tags(self) -> set[str]:
        """All of them."""
        return set(self._tags)

    @property
    def unsent(self) -> int:
        """How many are not on their way."""
        return len(self._tags) - len(self._sent)

    def __contains__(self, tag: str) -> bool:
        return tag in self._tags

    def send(self, most: int) -> list[str]:
        """Up to ``most`` tags that are not on their way yet; from now on they are."""
        tags = [tag for tag in list(self._tags) if tag not in self._sent][:most]
        self._sent.update(tags)
        return tags

    def confirm(self, tags: Iterable[str]) -> None:
        """Redis has removed them."""
        for tag in tags:
            self._tags.pop(tag, None)
            self._sent.discard(tag)

    def clear(self) -> None:
        """What was held is held no more: its acks would be wrong."""
        self._tags.clear()
        self._sent.clear()

    def take_back(self, tags: Iterable[str]) -> None:
        """Redis has perhaps not heard of them: they are to be sent again."""
        self._sent.difference_update(tags)

    def flush(self, remove: Callable[[list[str]], None]) -> None:
        """Have ``remove`` called with all that is unconfirmed; kept when that raises."""
        tags = list(self._tags)
        if tags:
            remove(tags)
            self.confirm(tags)
