"""One input in the node: its stages, and how it is ended from outside.

An input is *interruptible* only while the user's function runs: between :meth:`Input.enter`
and :meth:`Input.leave`, both called by :func:`guarded` around the task's ``run``. Ending it
before that keeps the function from starting; after it the outcome stands, for the tracer is
storing it. That makes one point, under the input's lock, at which an input either has
returned or has been ended: what was ended can no longer write a result.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from celery_concurrent.bridge import called_by_tracer, driven_by, run_coroutine
from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.errors import InputCancellation

#: Why an input is ended whose message is no longer this node's.
LOST = "its lease has lapsed, and it is another node's by now"
#: Why one is ended that a node leaves to others, at its end.
STOPPED = "the node stops"


class Hold(Protocol):
    """Says whether an input is still this node's."""

    @property
    def is_fresh(self) -> bool:
        """Whether it is for sure."""

    def confirm(self) -> bool:
        """Whether it is; waits while that cannot be told. May be called wherever inputs run."""


class Interrupter(Protocol):
    """The runner's way into one running input."""

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise ``error`` in the input as soon as it can be; called under the input's lock."""

    def clear(self) -> None:
        """Take back what was not raised yet; called from the input itself, at its end."""


class Input:
    """One Celery request that the pool was handed.

    Args:
        id: the task id.
        name: the task's name.
        group: whose slots it takes.
        target: the tracer, to be called with ``args``.
        request: Celery's request, whose callbacks settle it.
        soft_limit, hard_limit: seconds, None or 0 for none.
    """

    __slots__ = (
        "args",
        "deadlines",
        "dropped",
        "ended",
        "ended_at",
        "entered",
        "finished",
        "gate",
        "group",
        "hard_limit",
        "hold",
        "id",
        "interrupter",
        "is_async",
        "left",
        "lock",
        "name",
        "request",
        "root_id",
        "soft_limit",
        "soft_pending",
        "span",
        "started_at",
        "target",
        "token",
    )

    def __init__(
        self,
        *,
        id: str,
        name: str,
        root_id: str,
        group: str,
        is_async: bool,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        request: Any,
        token: int,
        soft_limit: float | None,
        hard_limit: float | None,
    ) -> None:
        self.id = id
        self.name = name
        self.root_id = root_id
        self.group = group
        self.is_async = is_async
        self.target = target
        self.args = args
        self.request = request
        self.token = token
        self.soft_limit = soft_limit
        self.hard_limit = hard_limit
        self.lock = threading.Lock()
        self.started_at: float | None = None
        self.deadlines: tuple[Any, ...] = ()
        #: Where it counts as fetched though it was acknowledged.
        self.gate: Any = None
        #: Under which it was taken; None where the broker tells by the connection.
        self.hold: Hold | None = None
        self.interrupter: Interrupter | None = None
        self.entered = False
        self.left = False
        self.finished = False
        self.soft_pending = False
        #: Its span of OpenTelemetry while it runs, see :mod:`.spans`; None where none is made.
        self.span: Any = None
        #: Why it was ended from outside; None while it was not.
        self.ended: str | None = None
        self.ended_at: float | None = None
        #: Celery has settled the request otherwise: our outcome is not to be reported.
        self.dropped = False

    def __repr__(self) -> str:
        return f"{self.name}[{self.id}]"

    @property
    def age(self) -> float:
        """Seconds since it took its slot."""
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    def enter(self) -> None:
        """The user's function is about to start.

        Raises:
            InputCancellation: it was ended before.
        """
        with self.lock:
            if self.ended is not None:
                self.left = True
                raise InputCancellation(self.ended)
            self.entered = True

    def leave(self) -> None:
        """The user's function has returned or raised; from here on nothing interrupts it."""
        with self.lock:
            self.left = True
            if self.interrupter is not None:
                self.interrupter.clear()

    def end(self, reason: str, error: type[BaseException] = InputCancellation) -> bool:
        """End it from outside; False when its function has returned already.

        Its slot comes back when the runner is done with it, not before.
        """
        with self.lock:
            if self.left or self.finished or self.ended is not None:
                return False
            self.ended, self.ended_at = reason, time.monotonic()
            if self.entered and self.interrupter is not None:
                self.interrupter.interrupt(error)
            return True

    def confirm(self) -> None:
        """Its function has returned: before that is told, make sure that it is to be told here."""
        hold = self.hold
        if hold is None or hold.is_fresh or self.ended is not None or hold.confirm():
            return
        with self.lock:
            self.dropped = True
            self.ended, self.ended_at = LOST, time.monotonic()

    def warn(self, error: type[BaseException]) -> bool:
        """Raise a soft time limit in it; False when its function is not running."""
        with self.lock:
            if self.left or not self.entered or self.ended is not None:
                return False
            if self.interrupter is None:
                return False
            self.soft_pending = True
            self.interrupter.interrupt(error)
            return True


def current_input() -> Input | None:
    """The input that this code runs for; None outside of a node's inputs."""
    return cast("Input | None", CURRENT_INPUT.get())


def _is_request_of(input: Input, request: Any) -> bool:
    """Whether it is the one that its tracer has made, and not one of a call within it."""
    return request.id == input.id and not request.called_directly


def guarded(run: Callable[..., Any], requests: Any) -> Callable[..., Any]:
    """Wrap a task's ``run`` so that an input is interruptible exactly while it runs.

    Args:
        run: may be wrapped already.
        requests: Celery's stack of the task's requests.
    """
    if hasattr(run, "__guarded__"):
        return run

    call, mark = driven_by(run) or (run, None)

    @functools.wraps(run)
    def guard(*args: Any, **kwargs: Any) -> Any:
        request = requests.top
        if request is None:  # not called by a tracer
            return run(*args, **kwargs)
        # When the task calls itself, that call has a request of its own (Task.__call__ of 5.6
        # and 5.7).
        request._protected = 1
        current = current_input()
        if current is None or current.entered or not _is_request_of(current, request):
            return run(*args, **kwargs)  # not in a node, or called by code of this or another task
        try:
            try:
                # Within, for an interruption may be raised as soon as it has entered.
                current.enter()
                value = call(*args, **kwargs)
                # What `run` would do. Here a coroutine waits with a call less on the C stack, of
                # which each waiting input keeps a copy.
                waits = mark is not None and called_by_tracer(mark)
                return run_coroutine(value) if waits else value
            finally:
                _leave(current)
        finally:
            # Again: a soft limit may be raised before the first finally's first line. That
            # happens once, and after a hard one nothing interrupts.
            _leave(current)
            current.confirm()
            if current.ended is not None:
                raise InputCancellation(current.ended)

    guard.__guarded__ = True  # type: ignore[attr-defined]  # read above
    return guard


def _leave(input: Input) -> None:
    """Go on until the lock has told everyone that what comes now comes too late."""
    while not input.left:
        try:  # noqa: SIM105
            input.leave()
        except BaseException:  # noqa: S110  # suppress() would be calls, too
            pass
