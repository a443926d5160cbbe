"""Something for each instance of a class."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import ref

from celery_concurrent.errors import ConfigurationError

M = TypeVar("M")


class PerInstance(Generic[M]):
    """Something for each instance of a class, which goes with it and is no part of it.

    Not kept in the instance, for its copies would have it too; nor in a WeakKeyDictionary, for an
    instance may be equal to another one.

    Args:
        make: makes it; must not keep the instance.
    """

    def __init__(self, make: Callable[[Any], M]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._made: dict[int, tuple[ref[Any], M]] = {}

    def of(self, instance: Any) -> M:
        """The instance's own, made when it is first asked for.

        Raises:
            ConfigurationError: nobody can tell when the instance goes.
        """
        known = self._made.get(id(instance))
        if known is not None and known[0]() is instance:
            return known[1]
        with self._lock:
            known = self._made.get(id(instance))
            if known is None or known[0]() is not instance:
                known = self._made[id(instance)] = (self._watch(instance), self._make(instance))
            return known[1]

    def _watch(self, instance: Any) -> ref[Any]:
        key, made = id(instance), self._made

        def forget(gone: ref[Any]) -> None:
            if key in made and made[key][0] is gone:  # the id may be another one's by now
                del made[key]

        try:
            return ref(instance, forget)
        except TypeError:
            raise ConfigurationError(
                f"@batched has something for each {type(instance).__name__}, whose __slots__ "
                "leave out __weakref__: add it to them"
            ) from None
