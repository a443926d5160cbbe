"""Messages as a node holds them, ten thousand at a time, while their inputs run."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual

#: What Celery adds to the copy of the headers that its request makes (5.6 and 5.7): by the request
#: itself, by the tracer, and from the body.
_ADDED = frozenset(
    {
        "args",
        "callbacks",
        "chain",
        "chord",
        "correlation_id",
        "delivery_info",
        "errbacks",
        "hostname",
        "is_eager",
        "kwargs",
        "properties",
        "reply_to",
    }
)


class HeldMessage(virtual.Message):
    """kombu's message (5.7), without a dict of its own for two attributes.

    Its headers need not be kept twice, see :meth:`share_headers`.
    """

    __slots__ = ("_fields", "_raw", "errors")

    headers: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.errors: Any = None  # as kombu's class has it
        super().__init__(*args, **kwargs)

    def share_headers(self, fields: dict[str, Any]) -> None:
        """Let go of the headers, of which a request has a copy: who asks for them gets that.

        Args:
            fields: the copy, to which Celery adds.
        """
        # Of a message of protocol 1 the request has made headers, which its own are not.
        if isinstance(self.payload, list | tuple) and _ADDED.isdisjoint(self.headers):
            self._fields = fields
            del self.headers

    def __getattr__(self, name: str) -> Any:
        """Called where an attribute is not set, as the headers are not when shared."""
        if name != "headers":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        fields = self._fields.copy()  # Celery may be adding to it
        headers = {name: value for name, value in fields.items() if name not in _ADDED}
        self.headers = headers  # type: ignore[misc]  # kombu's slot
        return headers
