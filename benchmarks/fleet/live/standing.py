"""The autoscaler's loop over nodes that are there only by what is heard of them.

``python -m benchmarks.fleet.live.standing NODES WARM_UP SECONDS FILE`` writes
:class:`.ticks.Looks`. The fleets have as many nodes as they want, so none is started or ended. All
but the engine is what ``celery autoscaler`` runs: the loop, its policies, the listener, the
broker's backlog.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.apps.fleet import app
from benchmarks.fleet.live.crowd import node_name, queue_of
from benchmarks.fleet.live.ticks import Looks
from celery_concurrent.autoscaler.backlog import Backlog
from celery_concurrent.autoscaler.listening import Listener
from celery_concurrent.autoscaler.local.tended import Tended
from celery_concurrent.autoscaler.loop import Autoscaler
from celery_concurrent.autoscaler.pins import DevicePins
from celery_concurrent.autoscaler.provider import FleetSpec, NodeProcess
from celery_concurrent.autoscaler.reports import Report, Reports
from celery_concurrent.autoscaler.sources import Seen
from celery_concurrent.board import Board
from celery_concurrent.fleets import fleets_of

_PATIENCE = 30.0


class _Standing:
    """An engine whose nodes neither come nor go; it lists them as the local one does."""

    def __init__(self, nodes: int) -> None:
        now = time.monotonic()
        self._nodes = [
            Tended(name=node_name(number), queue=queue_of(number), env={}, began=now)
            for number in range(nodes)
        ]

    def list(self) -> Sequence[NodeProcess]:
        return [node.told() for node in self._nodes]

    def start(self, fleet: FleetSpec, env: Mapping[str, str]) -> str:  # noqa: ARG002
        raise AssertionError(f"fleet {fleet.queue} has all the nodes that it may have")

    def drain(self, name: str) -> None:
        raise AssertionError(f"node {name} is full")

    stop = drain

    def close(self, *, stop_all: bool = False) -> None:
        """Nothing to let go of."""


class _Counting(Reports):
    """Counts what is heard."""

    heard = 0

    def note(self, event: Mapping[str, Any], now: float) -> Report | None:
        self.heard += 1
        return super().note(event, now)


class _Timed(Autoscaler):
    """Notes what each of its looks costs."""

    looks: Looks

    def turn(self, seen: Seen | None = None) -> float:
        wall, cpu = time.perf_counter(), time.thread_time()
        pause = super().turn(seen)
        self.looks.cpu.append(time.thread_time() - cpu)
        self.looks.wall.append(time.perf_counter() - wall)
        return pause


@dataclass(frozen=True)
class _Order:
    """What is to be measured, and where it goes."""

    nodes: int
    warm_up: float
    seconds: float
    path: Path


def main(order: _Order) -> None:
    """Measure for some seconds, once all nodes were heard."""
    reports, backlog = _Counting(), Backlog(app)
    loop = _Timed(
        fleets_of(app),
        provider=_Standing(order.nodes),
        backlog=backlog,
        reports=reports,
        pins=DevicePins(None, owner="benchmark"),
    )
    loop.looks = Looks()
    listener = Listener(app, reports, loop.heard, Board().note)
    listener.start()
    threading.Thread(target=_watch, args=(loop, reports, order), daemon=True).start()
    # As the autoscaler's process does.
    gc.collect()
    gc.freeze()
    loop.run()
    listener.close()
    backlog.close()


def _watch(loop: _Timed, reports: _Counting, order: _Order) -> None:
    until = time.monotonic() + _PATIENCE
    while len(reports.all()) < order.nodes and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(order.warm_up)
    looks = loop.looks = Looks()
    began, used, heard = time.monotonic(), _used(), reports.heard
    time.sleep(order.seconds)
    looks.seconds = time.monotonic() - began
    looks.used, looks.heard = _used() - used, reports.heard - heard
    looks.held = sum(keeper.blind is not None for keeper in loop.keepers.values())
    order.path.write_text(json.dumps(asdict(looks)))
    loop.stop()


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    words = sys.argv[1:]
    main(_Order(int(words[0]), float(words[1]), float(words[2]), Path(words[3])))
