"""What the autoscaler says of its fleet, asked as ``celery fleet status`` and ``fleet set`` ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from celery_concurrent.autoscaler import mailbox
from celery_concurrent.demo import app as demo
from celery_concurrent.demo.client import loss_told
from celery_concurrent.demo.errors import FleetError
from celery_concurrent.demo.fleet import Fleet

_INTERVAL = 0.2
# A question from before the autoscaler listens is never answered.
_ASK_AGAIN_AFTER = 1.0
# The autoscaler answers within milliseconds: on a machine with no time for it, later.
_SILENT_AFTER = 15.0


class Watch:
    """Keeps the last answer, on a thread that only asks. The one who reads never waits for it."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._answered = time.monotonic()
        self._error: Exception | None = None
        self._fleet: Fleet | None = None
        self._thread = threading.Thread(target=self._run, name="demo-watch", daemon=True)
        self._thread.start()

    @property
    def fleet(self) -> Fleet | None:
        """The fleet as it was a moment ago; None before the autoscaler has answered at all."""
        return self._fleet

    def check(self) -> None:
        """Raise :class:`BrokerLostError` or :class:`FleetError` if no more answers come."""
        if self._error is not None:
            raise self._error
        silence = time.monotonic() - self._answered
        if silence > _SILENT_AFTER:
            raise FleetError(f"the autoscaler has not answered for {silence:.0f} s")

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_INTERVAL):
            try:
                answer = ask("status")
            except Exception as error:
                self._error = error
                return
            if answer is not None and "fleets" in answer:
                (status,) = answer["fleets"]
                self._fleet = Fleet.of(status)
                self._answered = time.monotonic()


def resize(nodes: int) -> None:
    """``celery fleet set embed --min-nodes N --max-nodes N``.

    Raises:
        FleetError: the autoscaler does not answer, or refuses.
    """
    values = {"min_nodes": nodes, "max_nodes": nodes}
    answer = ask("set", {"queue": demo.QUEUE, "values": values})
    if answer is None or "error" in answer:
        told = "no answer" if answer is None else answer["error"]
        raise FleetError(f"the fleet could not be set to {nodes} nodes: {told}")


def ask(command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What the demo's autoscaler answers; None when it does not, in time."""
    with loss_told():
        answers = mailbox.ask(demo.app, command, arguments, timeout=_ASK_AGAIN_AFTER)
    return answers[0] if answers else None


def await_fleet(
    fleet: Callable[[], Fleet | None], nodes: int, *, within: float, check: Callable[[], None]
) -> None:
    """Return when the fleet has so many nodes that take inputs, and no others.

    Raises:
        FleetError: it had not after ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while (seen := fleet()) is None or not seen.is_settled(nodes):
        check()
        if time.monotonic() >= deadline:
            told = "not answered" if seen is None else seen.counted()
            raise FleetError(f"the fleet has {told} after {within:.0f} s, and not {nodes} ready")
        time.sleep(0.05)
