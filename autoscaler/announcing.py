"""What an autoscaler tells of its fleets: events, for Flower and whoever listens.

``concurrency-fleet`` for each fleet, once a second while it changes and every five seconds in any
case; ``concurrency-autoscaler`` every five seconds. Nobody has to ask: on Redis each question
would leave a key behind, and a page that is looked at would be a question a second.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from typing import Any, Final, Protocol

from celery.utils.log import get_logger

from celery_concurrent.board.words import AUTOSCALER, FLEET
from celery_concurrent.outlets import KeptOutlet, Outlet

logger = get_logger(__name__)

#: Seconds between two events of a fleet, at the least and at the most.
SHORTEST: Final = 1.0
LONGEST: Final = 5.0
#: Seconds that the loop may take to answer.
PATIENCE: Final = 5.0
#: Who announces, as Celery's events have it.
HOSTNAME: Final = f"autoscaler@{socket.gethostname()}"

#: Fields that change though nothing has happened: of a fleet, and of its nodes.
_PASSING: Final = frozenset({"reason"})
_PASSING_OF_NODES: Final = frozenset({"seconds"})


class Desk(Protocol):
    """Where statuses are to be had."""

    def later(self) -> Future[dict[str, Any]]:
        """The status of all fleets and devices, when the loop has looked."""


class Announcer:
    """Announces, on a thread and a connection of its own.

    What is announced is noted in this process first, so that a broker that is away hides nothing
    here.

    Args:
        desk: has what is announced.
        connect: gives an outlet; raises when it cannot.
        noted: called with each event.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        desk: Desk,
        connect: Callable[[], Outlet],
        noted: Callable[[Mapping[str, Any]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._outlet = KeptOutlet(
            connect,
            lost="fleets cannot be announced (%s): trying every second",
            again="fleets are announced again",
        )
        self._noted = noted
        self._clock = clock
        self._began = clock()
        self._told: dict[str, tuple[float, Any]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-announcing", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End it; does not wait for a broker that does not answer."""
        self._closing.set()
        self._thread.join(2.0)

    def announce(self) -> None:
        """Tell once what is due now."""
        events = list(self._due(self._desk.later().result(PATIENCE)))
        for kind, fields in events:
            self._noted({"type": kind, "hostname": HOSTNAME, "pid": os.getpid(), **fields})
        if not self._outlet.send(events):
            # Who comes to hear when it is back has heard nothing.
            self._told.clear()

    def _run(self) -> None:
        while not self._closing.wait(SHORTEST):
            try:
                self.announce()
            except futures.TimeoutError:
                logger.debug("the loop was too busy to tell its fleets")
            except Exception:  # whatever it is, fleets are to be kept, and told of next time
                logger.exception("telling of the fleets failed")
        self._outlet.close()

    def _due(self, status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events that are to be sent now, less what Celery adds."""
        queues = [fleet["queue"] for fleet in status["fleets"]]
        if self._is_due("", None):
            yield (
                AUTOSCALER,
                {
                    "host": status["autoscaler"]["host"],
                    "queues": queues,
                    "devices": status["devices"],
                },
            )
        for fleet in status["fleets"]:
            if self._is_due(fleet["queue"], _lasting(fleet)):
                yield FLEET, {**fleet, "age": round(self._clock() - self._began, 3)}

    def _is_due(self, name: str, said: Any) -> bool:
        now = self._clock()
        at, before = self._told.get(name, (now - LONGEST, None))
        if said == before and now < at + LONGEST:
            return False
        self._told[name] = (now, said)
        return True


def _lasting(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """A fleet's figures less those that change by themselves."""
    nodes = [
        {name: value for name, value in node.items() if name not in _PASSING_OF_NODES}
        for node in fleet["nodes"]
    ]
    return {**{name: fleet[name] for name in fleet if name not in _PASSING}, "nodes": nodes}
