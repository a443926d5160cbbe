"""A running ``celery autoscaler``, and a client of its app."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from celery import Celery

from benchmarks.fleet.live.servers import Servers
from benchmarks.fleet.live.settings import FleetSettings
from benchmarks.model import BenchmarkError, Broker
from benchmarks.processes import Process
from benchmarks.run import ROOT
from benchmarks.services import Redis
from celery_concurrent.autoscaler import mailbox

#: Seconds for what takes a second or two, on a busy machine.
PATIENCE = 60.0
_POLL = 0.05
_APP = "benchmarks.apps.fleet"


@contextmanager
def client_of(settings: FleetSettings) -> Iterator[Any]:
    """The same app as its callers see it: no fleets, the same broker and results."""
    app = Celery("bench-fleet", broker=settings.broker_url, backend=settings.result_url)
    try:
        yield app
    finally:
        app.close()


def app_settings(servers: Servers, broker: Broker, folder: Path, **given: Any) -> FleetSettings:
    """Where the app of a case finds everything; its queues' names belong to it alone."""
    return FleetSettings(
        broker_url=servers.url(broker),
        result_url=servers.redis.url(Redis.RESULTS),
        prefix=folder.name,
        **given,
    )


class Autoscaler:
    """The process; ended, with its nodes, at the end of the block."""

    def __init__(self, settings: FleetSettings, folder: Path, *, fresh: bool = False) -> None:
        self._ready_text = "autoscaler keeps" if fresh else "nodes are forked from"
        options = ("--fresh",) if fresh else ()
        self._process = Process(
            [sys.executable, "-m", "celery", "-A", _APP, "autoscaler", *options],
            log=folder / "autoscaler.log",
            env={**os.environ, **settings.to_env(), "XDG_STATE_HOME": str(folder / "state")},
            cwd=ROOT,
        )

    def wait_until_ready(self) -> None:
        """Until it keeps its fleets and has its template."""
        self.wait(lambda: self._ready_text in self._process.output, "an autoscaler that is ready")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Until something holds.

        Raises:
            BenchmarkError: it does not, or the autoscaler has ended.
        """
        until = time.monotonic() + PATIENCE
        while not holds():
            if self._process.exit_code is not None:
                raise BenchmarkError(f"the autoscaler has ended: {self.last_words}")
            if time.monotonic() > until:
                raise BenchmarkError(f"no {what} in {PATIENCE:g} s: {self.last_words}")
            time.sleep(_POLL)

    @property
    def last_words(self) -> str:
        return self._process.output[-600:]

    def cpu(self) -> float:
        """Seconds of processor time used; template and nodes, in sessions of their own, apart."""
        return self._process.cpu()

    def __enter__(self) -> Autoscaler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.end(grace=PATIENCE if kind is None else 0.0)


def status_of(client: Any, queue: str) -> dict[str, Any]:
    """What ``fleet status --json`` tells of one fleet; empty when nobody answers in time."""
    for answer in mailbox.ask(client, "status", timeout=5.0)[:1]:
        for fleet in answer.get("fleets", ()):
            if fleet["queue"] == queue:
                found: dict[str, Any] = fleet
                return found
    return {}
