"""Where the inputs of a map are."""

from __future__ import annotations

from typing import Any

from celery_concurrent.errors import PublishError


class Account:
    """Handles by the inputs' numbers; each number is in one place at the most.

    A number that is nowhere was not sent, or its result was handed out.
    """

    def __init__(self) -> None:
        self.published: dict[int, Any] = {}
        self.uncertain: dict[int, Any] = {}
        self.refused: dict[int, Any] = {}

    def error(self, message: str) -> PublishError:
        """An error that says where everything is."""
        return PublishError(
            message,
            published=self.published.values(),
            uncertain=self.uncertain.values(),
            refused=self.refused.values(),
        )
