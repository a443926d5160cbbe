"""What Celery's own backend would write for a result, collected instead of written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery_concurrent.pool.hops import Outcome
from celery_concurrent.redis.storing import Write

#: Positional and named ones of a backend's ``store_result``.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

#: Items of a value, and characters of each, that are encoded in a few microseconds.
FEW = 16
SHORT_TEXT = 200

_NUMBERS = (bool, int, float, type(None))


class Recorder:
    """Stands in a RedisBackend for Redis: reads were made before, writes are collected.

    Args:
        backend: made for it alone. Touched are its ``client``, ``ensure``, ``_set`` and
            ``get_key_for_task``, as they are called in Celery 5.6 and 5.7.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.writes: list[Write] = []
        self._values: dict[Any, Any] = {}
        backend.client = self  # in the place of a cached property
        backend.ensure = self.ensure
        backend._set = self.set
        self._make_key = backend.get_key_for_task
        backend.get_key_for_task = self.key_for
        self._key: tuple[str, Any] = ("", None)

    def begin(self, values: dict[Any, Any]) -> None:
        """Answer reads from ``values``, and collect anew."""
        self._values, self.writes = values, []

    def store(self, key: Any, arguments: Arguments) -> Outcome:
        """Collect what is to be written for a result, or tell why it cannot be."""
        (task_id, *_), _ = arguments
        self._key = (task_id, key)
        return outcome_of(self.backend.store_result, arguments)

    def key_for(self, task_id: str, key: str = "") -> Any:
        """The key of a result; it is asked for twice, and known from when the result came."""
        known_id, known = self._key
        return known if task_id is known_id and not key else self._make_key(task_id, key)

    def get(self, key: Any) -> Any:
        """What the key holds: what it held when the batch began, or what the batch writes."""
        return self._values.get(key)

    @staticmethod
    def ensure(function: Callable[..., Any], args: tuple[Any, ...], **_: Any) -> Any:
        """Nothing is tried again here: the batch is, as a whole."""
        return function(*args)

    def set(self, key: Any, value: Any, expires: Any = None) -> None:
        """Store a result, and tell those who wait for it."""
        seconds = self.backend.expires if expires is None else expires
        # The end of a try and the success of the next one may be in one batch, in either order.
        self._values[key] = value
        self.writes.append(Write(key, value, int(seconds or 0)))


def encodes_at_once(backend: Any) -> bool:
    """Whether encoding takes no longer than what is encoded is long, and waits for nothing."""
    # Compression is new in Celery 5.7. An extended result has the input's arguments in it.
    return (
        backend.serializer in ("json", "pickle")
        and not getattr(backend, "compression", None)
        and not backend.app.conf.result_extended
    )


def is_short(arguments: Arguments) -> bool:
    """Whether a result is a plain value, or a few of them: no code of the user's encodes it."""
    (_, value, *_), named = arguments
    if getattr(named.get("request"), "children", None):
        return False  # they are in the result
    kind = type(value)
    if kind is dict:
        return len(value) <= FEW and all(
            type(key) is str and len(key) <= SHORT_TEXT and _is_plain(item)
            for key, item in value.items()
        )
    if kind is list or kind is tuple:
        return len(value) <= FEW and all(map(_is_plain, value))
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= SHORT_TEXT
    return kind in _NUMBERS and (kind is not int or value.bit_length() <= 64)


def outcome_of(store: Callable[..., Any], arguments: Arguments) -> Outcome:
    """What a backend's ``store_result`` returns, or raises."""
    positional, named = arguments
    try:
        return (True, store(*positional, **named))
    except Exception as error:
        return (False, error)
