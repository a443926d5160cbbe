"""What one element of the iterable says: the arguments of an input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from time import monotonic
from typing import Any

#: Seconds after its first input at which a chunk goes out, full or not.
CHUNK_WAITS = 0.1


class Arguments:
    """The arguments of one input, for a task that takes more than one.

    ``task_map(resize, (Arguments(path, size=64) for path in paths))``
    """

    __slots__ = ("args", "kwargs")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        words = [repr(value) for value in self.args]
        words += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"Arguments({', '.join(words)})"


Call = tuple[int, tuple[Any, ...], dict[str, Any]]


class Calls:
    """The inputs that an iterable describes, chunk by chunk.

    Args:
        iterable: of arguments; one that is no :class:`Arguments` is an input's only one.
        kwargs: keyword arguments of all inputs; an input's own come first.
    """

    def __init__(self, iterable: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        self._iterator: Iterator[Any] = iter(iterable)
        self._kwargs = dict(kwargs)
        self._numbers = count()
        self.is_exhausted = False
        #: What the iterable raised; what it gave before is to be published first.
        self.error: Exception | None = None

    def take(self, most: int) -> list[Call]:
        """The next ``most`` inputs: fewer at the end, or when the iterable is slow."""
        taken: list[Call] = []
        deadline = None
        while len(taken) < most:
            try:
                element = next(self._iterator)
            except StopIteration:
                self.is_exhausted = True
                break
            except Exception as error:
                self.is_exhausted, self.error = True, error
                break
            args, kwargs = (element,), self._kwargs
            if isinstance(element, Arguments):
                args, kwargs = element.args, {**self._kwargs, **element.kwargs}
            taken.append((next(self._numbers), args, kwargs))
            now = monotonic()
            deadline = now + CHUNK_WAITS if deadline is None else deadline
            if now >= deadline:
                break
        return taken
