"""The errors of this package; each docstring says when it is raised and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ConcurrencyError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigurationError(ConcurrencyError, ValueError):
    """A decorator, setting or option has a value that cannot work.

    Raised where the value is written: at definition time for decorators, at start for
    settings and options. The message names the parameter, the value and the remedy.
    """


class MissingExtraError(ConcurrencyError, ImportError):
    """An optional library is needed and not installed.

    The message holds the ``pip install`` line that brings it.
    """


class InputOutsideError(ConcurrencyError, RuntimeError):
    """Something that belongs to a running input was asked for outside of one.

    Call it from code that runs below a task, or hand over the task explicitly.
    """


class ServiceError(ConcurrencyError, RuntimeError):
    """The service's instance could not be made or is not loaded.

    Its ``enter`` failed, or the node is stopping. The chained error says why.
    """


class BatchError(ConcurrencyError, ValueError):
    """A function below ``@batched`` did not return one result per element.

    All elements of that call fail with it. Return a list as long as the one that was given. It
    also tells of a call that was cancelled by what it awaits, or that hangs.
    """


class InputCrashError(ConcurrencyError):
    """An input raised what is no Exception, such as SystemExit or MemoryError.

    Only that input ends, as a failure; the node serves on. Raise an Exception, or revoke the
    input, instead of leaving the process from within a task.
    """


class InputCancellation(BaseException):
    """Ends one input: it was revoked, ran over its hard limit, or the node is stopping.

    A BaseException, as :class:`asyncio.CancelledError` is, so that ``except Exception``
    in a task does not swallow it. Raised in sync inputs; async ones get CancelledError.
    """


class PublishError(ConcurrencyError):
    """Not all inputs of a ``task_map`` were published; the chained error says why.

    Each input is in one of three places. Await or revoke what is ``published``, ask whether
    ``uncertain`` ones have a result before you publish their inputs again, and publish what is
    neither whenever you like: it was not sent.

    Attributes:
        published: handles of the inputs that the broker has, in the inputs' order, less those
            whose results were already given to you.
        uncertain: handles of the inputs that went out on a connection that broke before the
            broker's answer: it may have them or not.
        refused: handles of the inputs that the broker refused or returned.
    """

    def __init__(
        self,
        message: str,
        *,
        published: Iterable[Any] = (),
        uncertain: Iterable[Any] = (),
        refused: Iterable[Any] = (),
    ) -> None:
        super().__init__(message)
        self.published = list(published)
        self.uncertain = list(uncertain)
        self.refused = list(refused)
