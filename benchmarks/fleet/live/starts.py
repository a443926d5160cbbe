"""How soon an input that finds no room gets a node, and is done."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celery.exceptions import TimeoutError as NoResultError

from benchmarks.fleet.live.kept import PATIENCE, Autoscaler, app_settings, client_of, status_of
from benchmarks.fleet.live.model import Case, Line, Tell
from benchmarks.fleet.live.servers import Servers
from benchmarks.fleet.live.settings import FleetSettings
from benchmarks.model import BenchmarkError, Broker
from benchmarks.probe import Probe

#: What the p99 may be, in ms.
DECISION = 100.0
FORKED = 150.0
_FEW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Seconds from when the input began to be published.

    Args:
        decided: until the autoscaler decided for another node.
        consumed: until a node ran the input's first line.
        result: until its result was here.
    """

    decided: float
    consumed: float
    result: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """An input at a time, for which a node has to be started."""

    name: str = "start"

    def cases(self, broker: Broker, *, repeat: int, quick: bool) -> Iterator[Case]:
        case = Case(row=self.name, broker=broker, samples=repeat)
        for fresh in (False, True):
            for busy in (False, True):
                yield replace(case, busy=busy, fresh=fresh)
        for queues in (100,) if quick else (100, 1_000):
            yield replace(case, queues=queues)

    def measure(self, case: Case, servers: Servers, tell: Tell) -> list[Line]:
        folder = servers.fresh_folder()
        # A place for each input, and for one that fills the node that is there.
        probe = Probe.create(folder / "probe", 2 * (case.samples + 1))
        settings = app_settings(
            servers,
            case.broker,
            folder,
            probe=str(folder / "probe"),
            queues=case.queues,
            min_nodes=int(case.busy),
        )
        with (
            Autoscaler(settings, folder, fresh=case.fresh) as autoscaler,
            client_of(settings) as client,
        ):
            autoscaler.wait_until_ready()
            run = _Run(case, settings, autoscaler, client, probe, folder)
            samples = []
            for index in range(case.samples + 1):
                samples.append(run.sample(index))
                tell(index)
        probe.close()
        return lines(case, samples[1:])  # the first one also warms up client and template


def lines(case: Case, samples: Sequence[Sample]) -> list[Line]:
    """The figures of a case, in ms."""

    def line(what: str, seconds: Iterator[float], most: float | None = None) -> Line:
        values = tuple(each * 1_000 for each in seconds)
        return Line(case=case, what=what, unit="ms", values=values, most=most)

    # A thousand queues are read less often on RabbitMQ, and a worker prepares each of its tasks.
    few = case.queues <= _FEW
    return [
        line(
            "arrival to start decision",
            (each.decided for each in samples),
            DECISION if few or case.broker == "redis" else None,
        ),
        line(
            "decision to consuming node",
            (each.consumed - each.decided for each in samples),
            FORKED if few and not case.fresh else None,
        ),
        line("arrival to consuming node", (each.consumed for each in samples)),
        line("arrival to first result", (each.result for each in samples)),
    ]


@dataclass(frozen=True)
class _Run:
    case: Case
    settings: FleetSettings
    autoscaler: Autoscaler
    client: Any
    probe: Probe
    folder: Path

    def sample(self, index: int) -> Sample:
        queue = self.settings.queue(random.randrange(self.case.queues))
        if not self.case.busy:
            self._wait(queue, is_empty, "fleet without nodes")
            return self._arrive(queue, index)
        self._wait(queue, is_rested, "fleet of one idle node")
        flag = self.folder / f"flag-{index}"
        blocker = self._send(queue, self.case.samples + 1 + index, flag)
        self._wait(queue, is_full, "fleet of one full node")
        try:
            return self._arrive(queue, index)
        finally:
            flag.touch()
            self._done(blocker)

    def _arrive(self, queue: str, index: int) -> Sample:
        # At any moment between two looks of the autoscaler's, whom the question has woken.
        time.sleep(random.uniform(0.2, 0.3))
        began, wall = time.monotonic(), time.time()
        self._done(self._send(queue, index))
        result = time.monotonic() - began
        return Sample(
            decided=decision_after(wall, status_of(self.client, queue)) - wall,
            consumed=self.probe.begun(index) - began,
            result=result,
        )

    def _send(self, queue: str, index: int, flag: Path | None = None) -> Any:
        return self.client.send_task(queue, (index, flag and str(flag)), queue=queue)

    def _done(self, result: Any) -> None:
        try:
            result.get(timeout=PATIENCE)
        except NoResultError:
            raise BenchmarkError(f"an input has no result: {self.autoscaler.last_words}") from None

    def _wait(self, queue: str, holds: Any, what: str) -> None:
        self.autoscaler.wait(lambda: holds(status_of(self.client, queue)), what)


def decision_after(at: float, status: Mapping[str, Any]) -> float:
    """When the fleet was first decided to grow, after ``at``; both in seconds since the epoch.

    Raises:
        BenchmarkError: it was not.
    """
    for change in status.get("decisions", ()):
        if change["at"] >= at and change["after"] > change["before"]:
            return float(change["at"])
    raise BenchmarkError(f"no decision since {at:.3f}: {status.get('decisions')}")


def is_empty(status: Mapping[str, Any]) -> bool:
    """Whether there is no node, and none is wanted."""
    return bool(status) and not status["nodes"] and status["desired"] == status["demand"] == 0


def is_rested(status: Mapping[str, Any]) -> bool:
    """Whether there is one node, which waits for inputs."""
    return _has_one_ready(status) and status["demand"] == 0


def is_full(status: Mapping[str, Any]) -> bool:
    """Whether there is one node, and it takes no input more."""
    return _has_one_ready(status) and status["running"] == status["demand"] == 1


def _has_one_ready(status: Mapping[str, Any]) -> bool:
    states = [node["state"] for node in status.get("nodes", ())]
    return states == ["ready"] and status["desired"] == 1
