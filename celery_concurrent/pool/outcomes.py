"""How an input ended, and telling Celery's request of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Reject
from kombu.utils.encoding import safe_repr

from celery_concurrent.errors import InputCrashError
from celery_concurrent.pool.inputs import Input


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running Celery's tracer.

    Args:
        traced: what it returned: (failed, value, seconds); None when it raised.
        error: what it raised, when it did.
    """

    traced: tuple[int, Any, float] | None
    error: ExceptionInfo | None = None

    @property
    def failure(self) -> ExceptionInfo | None:
        """What became of an input that raised; None where it returned."""
        if self.error is not None:
            return self.error
        assert self.traced is not None
        failed, value, _ = self.traced
        return value if failed else None

    @property
    def exception(self) -> BaseException | None:
        """What the input raised, out of what billiard wraps it in; None where it returned."""
        if self.failure is None:
            return None
        error: BaseException = self.failure.exception
        return error.exc if isinstance(error, ExceptionWithTraceback) else error

    def report(self, request: Any) -> None:
        """Let the request settle: state, events, acknowledgement."""
        if self.error is None:
            request.on_success(self.traced)
        else:
            request.on_failure(self.error)

    @property
    def is_given_back(self) -> bool:
        """Whether the task gave its message back on purpose: it is to run when it comes again."""
        return isinstance(self.exception, Reject)


def run_tracer(input: Input) -> Outcome:
    """Run Celery's tracer for an input; the result is stored when this returns.

    Never raises: SystemExit and the like end this input only, as a failure. So does
    MemoryError, which Celery's request would raise instead of settling (5.6 and 5.7).
    """
    try:
        # By their names: a call with a star would take room on the C stack, of which each
        # waiting async input keeps a copy.
        name, id, fields, body, content_type, encoding = input.args
        input.args = ()  # the frame holds them by now
        traced = input.target(name, id, fields, body, content_type, encoding)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            return Outcome(None, ExceptionInfo())
        return Outcome(None, _crash(input, error))
    outcome = Outcome(traced)
    failed, _, seconds = traced
    if failed and isinstance(outcome.exception, MemoryError):
        return Outcome((failed, _crash(input, outcome.exception), seconds))
    return outcome


def _crash(input: Input, error: BaseException) -> ExceptionInfo:
    try:
        raise InputCrashError(f"{input} raised {safe_repr(error)}") from error
    except InputCrashError:
        return ExceptionInfo()
