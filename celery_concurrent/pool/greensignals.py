"""Celery's signal handlers where the worker's one thread runs green threads.

A handler interrupts whatever greenlet runs, mostly the hub's own, in which nothing may wait.
The handlers of a cold stop and of a soft shutdown do wait, for the broker and for the inputs:
run in the hub they failed half-way, and the node left without giving its inputs back. Here
each runs in a green thread of its own, which the hub is woken for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import eventlet
from celery import platforms
from eventlet import hubs
from greenlet import getcurrent

#: How Celery names its handlers of shutdown (``celery.apps.worker``, 5.6 and 5.7).
WARM, COLD = "worker_Warm", "worker_Cold"
SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT")


class GreenSignals(platforms.Signals):
    """Stands in the place of ``celery.platforms.signals``; a handler may install others.

    Args:
        on_cold: called before a cold stop waits for anything. With a hub its handler would
            hold the consumer up meanwhile; here the node must be told to start nothing.
    """

    def __init__(self, on_cold: Callable[[], None]) -> None:
        self._on_cold = on_cold
        self._main = getcurrent()
        self._before: Any = None

    def install(self) -> None:
        """Take over the handlers that are there, and those to come."""
        self._before, platforms.signals = platforms.signals, self
        for name in SIGNALS:
            self[name] = self[name]

    def uninstall(self) -> None:
        """Leave those to come alone."""
        if platforms.signals is self:
            platforms.signals = self._before

    def __setitem__(self, name: str, handler: Any) -> None:
        if getattr(handler, "__name__", "") in {WARM, COLD}:
            handler = self._green(handler)
        super().__setitem__(name, handler)

    def _green(self, handler: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            if handler.__name__ == COLD:
                self._on_cold()
            try:
                handler(*args)
            except BaseException as error:  # it ends the worker: raise it where that runs
                hubs.get_hub().schedule_call_global(0, self._main.throw, error)

        def handle(*args: Any) -> None:
            # The hub sleeps on in its poll after a handler, unless it is woken.
            hubs.get_hub().loop.call_soon_threadsafe(eventlet.spawn_n, run, *args)

        return handle
