"""Hearing the nodes: a thread that keeps one connection to the broker's events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from celery_concurrent.autoscaler.attached import Attached
from celery_concurrent.autoscaler.reports import Reports
from celery_concurrent.brokers import consume
from celery_concurrent.worker.telling import TYPE

#: What Celery makes of the events' type: task events do not come here.
ROUTING_KEY = TYPE.replace("-", ".")


class Listener(Attached):
    """Notes each node's last word. Nodes that are not heard hold their fleets.

    Args:
        app: the Celery app.
        reports: where words are noted.
        heard: called after each that changes what a policy sees.
        noted: called with each event besides.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: Any,
        reports: Reports,
        heard: Callable[[], None],
        noted: Callable[[Mapping[str, Any]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(app, "fleet-events", "events")
        self._reports = reports
        self._heard = heard
        self._noted = noted
        self._clock = clock

    def consume(self, connection: Any) -> None:
        """Hear events."""
        consume(
            self._app.events.Receiver(
                connection, handlers={TYPE: self._note}, routing_key=ROUTING_KEY
            )
        )

    def _note(self, event: dict[str, Any]) -> None:
        self._noted(event)
        before = self._reports.of(str(event.get("hostname")))
        report = self._reports.note(event, self._clock())
        if report is None:
            return
        if before is None or (before.state, before.finished) != (report.state, report.finished):
            self._heard()
