"""What a look at large fleets costs while all their nodes tell of themselves."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fleet.live.kept import PATIENCE, app_settings
from benchmarks.fleet.live.model import Case, Line, Tell
from benchmarks.fleet.live.servers import Servers
from benchmarks.fleet.live.settings import FleetSettings
from benchmarks.model import BenchmarkError, Broker
from benchmarks.processes import Process
from benchmarks.run import ROOT

_INPUTS = 8
_POLL = 0.1


@dataclass(slots=True)
class Looks:
    """What looking at the fleets has cost.

    Args:
        cpu, wall: seconds of each look; of the loop's thread, and on the clock.
        seconds: how long all of this took.
        used: processor seconds of the whole process in that time.
        heard: how many events it has heard in that time.
        held: how many fleets had an unknown demand at the end.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    seconds: float = 0.0
    used: float = 0.0
    heard: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """The loop and the listener as they are, in a process with an engine that only lists nodes."""

    name: str = "tick"
    nodes: int = 1_000
    fleets: int = 10
    warm_up: float = 3.0  # longer than each node needs to be heard again

    def cases(self, broker: Broker, *, quick: bool, **_repeat: int) -> Iterator[Case]:
        seconds = 3 if quick else 10
        yield Case(
            row=self.name, broker=broker, queues=self.fleets, nodes=self.nodes, samples=seconds
        )

    def measure(self, case: Case, servers: Servers, tell: Tell) -> list[Line]:
        folder = servers.fresh_folder()
        each = case.nodes // case.queues
        settings = app_settings(
            servers,
            case.broker,
            folder,
            queues=case.queues,
            min_nodes=each,
            max_nodes=each,
            max_inputs=_INPUTS,
        )
        with ExitStack() as stack:

            def start(module: str, *words: object) -> Process:
                process = _start(module, words, settings, folder)
                stack.callback(process.end)
                return process

            told = folder / "looks.json"
            standing = start("standing", case.nodes, self.warm_up, case.samples, told)
            crowd = start("crowd", case.nodes)
            until = time.monotonic() + case.samples + PATIENCE
            while standing.exit_code is None:
                if time.monotonic() > until or crowd.exit_code is not None:
                    raise BenchmarkError(f"no looks: {standing.output}{crowd.output}"[-900:])
                time.sleep(_POLL)
            if standing.exit_code != 0:
                raise BenchmarkError(f"no looks: {standing.output[-900:]}")
        tell(case.samples)
        return lines(case, Looks(**json.loads(told.read_text())))


def lines(case: Case, looks: Looks) -> list[Line]:
    """The figures of a case.

    Raises:
        BenchmarkError: it did not look, or did not see its nodes.
    """
    if not looks.cpu or looks.held:
        raise BenchmarkError(f"{len(looks.cpu)} looks, {looks.held} fleets with silent nodes")

    def line(what: str, unit: str, *values: float) -> Line:
        return Line(case=case, what=what, unit=unit, values=values)

    return [
        line("a look: CPU", "ms", *[1_000 * each for each in looks.cpu]),
        line("a look: wall", "ms", *[1_000 * each for each in looks.wall]),
        line("looks", "per s", len(looks.cpu) / looks.seconds),
        line("events heard", "per s", looks.heard / looks.seconds),
        line("the whole process", "% of a core", 100 * looks.used / looks.seconds),
    ]


def _start(
    module: str, words: tuple[object, ...], settings: FleetSettings, folder: Path
) -> Process:
    return Process(
        [sys.executable, "-m", f"benchmarks.fleet.live.{module}", *map(str, words)],
        log=folder / f"{module}.log",
        env={**os.environ, **settings.to_env()},
        cwd=ROOT,
    )
