"""What a channel's last take has taken, told by its record when the answer is lost.

How a record is written and closed, see :mod:`.scripts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kombu.utils.encoding import bytes_to_str

from celery_concurrent.quickjson import loads
from celery_concurrent.redis.scripts import CLOSE_RECORD


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTake:
    """A take whose answer was lost with its connection.

    Args:
        record: the key of its channel's record.
        number: which of the channel's takes it was.
    """

    record: str
    number: int

    def close(self, client: Any, kept: int) -> list[str]:
        """The tags of what it has taken; it takes nothing from now on.

        Args:
            client: of the broker's Redis.
            kept: seconds for which it is known to be closed.
        """
        record = client.eval(CLOSE_RECORD, 1, self.record, kept)
        if not record:
            return []
        number, tags = loads(bytes_to_str(record))
        return list(tags) if number == self.number else []


class Record:
    """A channel's.

    Args:
        prefix: of its key.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.key = self._new_key()
        #: The last take; its answer is still to come while ``is_unanswered``.
        self.number = 0
        self.is_unanswered = False

    @property
    def lost(self) -> LostTake | None:
        """The last take, when its answer is lost."""
        return LostTake(record=self.key, number=self.number) if self.is_unanswered else None

    def begin(self) -> None:
        """Another take goes out."""
        self.number += 1
        self.is_unanswered = True

    def renew(self) -> None:
        """The lost take is taken up, and its record closed."""
        self.is_unanswered = False
        self.key = self._new_key()

    def _new_key(self) -> str:
        return f"{self._prefix}.take.{uuid4()}"
