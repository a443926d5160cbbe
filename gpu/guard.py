"""When a node should run fewer inputs, for its device's memory: decisions, and who carries them.

Two things lower what a node runs. While its device is short of memory it keeps to target:
what runs above it ends, and nothing new begins there. And the first out-of-memory error that
an input raises lowers the limit of its function for good. Only the first: an input that fits
on no device is retried, and would otherwise bring the whole node down to one input at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.gpu.device import Memory

#: The share of a device's memory that is to stay free.
MARGIN = 0.1
# Libraries by their modules' first name, for none of them is imported here.
_CLASSES = {
    "OutOfMemoryError": {"torch", "cupy"},
    "ResourceExhaustedError": {"tensorflow"},
}
_STATUS = ("RESOURCE_EXHAUSTED", {"jax", "jaxlib"})
_RUNTIME_PHRASES = ("CUDA out of memory", "CUDA error: out of memory", "CUDA_ERROR_OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What keeps a node below its limits; the default is nothing.

    Args:
        short: how much is free, of the device that has the least, since that is too little.
        lowered: the limits of the functions and services of which an input ran out of memory.
    """

    short: Memory | None = None
    lowered: Mapping[str, int] = field(default_factory=dict)

    def ceilings(self, targets: Mapping[str, int]) -> dict[str, int]:
        """How many inputs of each function may run at once; those that are free are left out.

        Args:
            targets: by function or service, the inputs that it keeps to while memory is short.
        """
        if self.short is None:
            return dict(self.lowered)
        return {
            name: min(target, self.lowered.get(name, target)) for name, target in targets.items()
        }

    @property
    def reason(self) -> str | None:
        """Why there are ceilings, for people; None where there are none."""
        reasons = [
            f"an input of {name} ran out of device memory: its limit is {limit}"
            for name, limit in self.lowered.items()
        ]
        if self.short is not None:
            reasons.append(
                f"{self.short.free_share:.1%} of the device's memory is free: "
                "no new input above target"
            )
        return "; ".join(reasons) or None


def watched(
    guarded: Guarded, memories: Sequence[Memory | None], *, margin: float = MARGIN
) -> Guarded:
    """After a look at the memory of the node's devices; None is one that does not tell.

    A device that is short tells, whatever the others say. Without any reading all stays as it
    was: unknown is neither short nor enough.
    """
    told = [memory for memory in memories if memory is not None]
    if not told:
        return guarded
    least = min(told, key=lambda memory: memory.free_share)
    if least.free_share < margin:
        return guarded if guarded.short is not None else replace(guarded, short=least)
    return guarded if len(told) < len(memories) else replace(guarded, short=None)


def ran_out(guarded: Guarded, name: str, *, target: int, running: int) -> Guarded:
    """After an input of ``name`` ran out of memory while ``running`` of its inputs ran.

    It goes to target, or where no more than that ran, to one input less than ran, itself
    included. An input that ran alone needs more than there is: a lower limit would not help it.
    """
    if name in guarded.lowered or running <= 1:
        return guarded
    limit = max(1, min(target, running - 1))
    return replace(guarded, lowered={**guarded.lowered, name: limit})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, its cause, or one in its group says that a device's memory is full.

    Known by names, so that no library is imported: PyTorch's and CuPy's OutOfMemoryError,
    TensorFlow's ResourceExhaustedError, JAX's RESOURCE_EXHAUSTED, a RuntimeError with CUDA's
    words. A MemoryError is the host's.
    """
    return any(_says_so(one) for one in _chain(error))


class MemoryGuard:
    """Tells a node how many inputs it may run at once, whenever that changes; from any thread.

    Args:
        targets: see :meth:`Guarded.ceilings`.
        on_change: told the ceilings when they have changed, and their reason. Called with the
            guard's lock held, so that the last call is the last word: it must not call the guard.
        margin: the share of memory that is to stay free, 0.0 to below 1.0; 0.0 is never short.

    Raises:
        ConfigurationError: the margin is no such number.
    """

    def __init__(
        self,
        *,
        targets: Mapping[str, int],
        on_change: Callable[[Mapping[str, int], str | None], None],
        margin: float = MARGIN,
    ) -> None:
        check_margin("margin", margin)
        self._targets = dict(targets)
        self._on_change = on_change
        self._margin = margin
        self._guarded = Guarded()
        self._lock = threading.Lock()

    @property
    def guarded(self) -> Guarded:
        """What holds now."""
        return self._guarded

    def look(self, memories: Sequence[Memory | None]) -> Guarded:
        """Do what follows from the memory of the node's devices; to be called every second."""
        return self._change(lambda guarded: watched(guarded, memories, margin=self._margin))

    def stand_aside(self) -> Guarded:
        """The memory cannot be read: nothing is known, so nothing is kept to target for it."""
        return self._change(lambda guarded: replace(guarded, short=None))

    def failed(self, error: BaseException, name: str, *, running: int) -> Guarded:
        """An input of ``name`` raised this while so many of its inputs ran, itself included."""
        if name not in self._targets or not is_out_of_memory(error):
            return self._guarded
        target = self._targets[name]
        return self._change(lambda guarded: ran_out(guarded, name, target=target, running=running))

    def _change(self, step: Callable[[Guarded], Guarded]) -> Guarded:
        with self._lock:
            before, self._guarded = self._guarded, step(self._guarded)
            ceilings = self._guarded.ceilings(self._targets)
            if ceilings != before.ceilings(self._targets):
                self._on_change(ceilings, self._guarded.reason)
            return self._guarded


def check_margin(setting: str, margin: object) -> None:
    """Refuse what is no margin, under the name by which its user knows it.

    Raises:
        ConfigurationError: as it says.
    """
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < 1:
        raise ConfigurationError(
            f"{setting}={margin!r} must lie in 0.0..1.0, 1.0 left out: the share of a device's "
            "memory that is to stay free. 0 turns the guard of the memory off"
        )


def _says_so(error: BaseException) -> bool:
    if any(_library(kind) in _CLASSES.get(kind.__name__, ()) for kind in type(error).__mro__):
        return True
    text = str(error)
    status, libraries = _STATUS
    if status in text and any(_library(kind) in libraries for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _RUNTIME_PHRASES)


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its explicit causes, and what its groups hold; each one once."""
    waiting, met = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in met:
            continue
        met.add(id(one))
        yield one
        if one.__cause__ is not None:
            waiting.append(one.__cause__)
        # By the attribute: Python 3.10 has no ExceptionGroup.
        waiting.extend(getattr(one, "exceptions", ()))
