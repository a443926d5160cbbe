"""The two runs of the demo: an autoscaled fleet, then a fixed one that costs as much."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.demo.app import LIMITS, MAX_NODES, MIN_NODES
from celery_concurrent.demo.autoscaler import AutoscalerProcess
from celery_concurrent.demo.client import CeleryClient, use_broker
from celery_concurrent.demo.fleet import Fleet
from celery_concurrent.demo.measure import Ledger
from celery_concurrent.demo.replay import replay
from celery_concurrent.demo.summary import fixed_size
from celery_concurrent.demo.view import shown
from celery_concurrent.demo.watch import Watch, await_fleet, resize
from celery_concurrent.embedded import EmbeddedBroker

_READY_WITHIN = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Both runs, and the exit status of the autoscaler that kept both fleets."""

    autoscaled: Ledger
    fixed: Ledger
    status: int


def run_both(
    arrivals: Sequence[Arrival],
    *,
    speed: float,
    interrupted: Callable[[], None],
    console: Console,
    say: Say,
) -> Runs:
    """Start broker and autoscaler, replay twice, end both; nothing is left on any way out.

    Args:
        interrupted: raises when the demo was asked to end.
        say: prints a line.
    """
    with _started(interrupted) as (autoscaler, watch):

        def check() -> None:
            interrupted()
            autoscaler.check()
            watch.check()

        stage = _Stage(arrivals=arrivals, speed=speed, console=console, watch=watch, check=check)
        say(f"1. autoscaled: {MIN_NODES} to {MAX_NODES} nodes, as the demand asks for")
        autoscaled = stage.run(MIN_NODES)
        size = fixed_size(autoscaled)
        say(
            f"\n   {autoscaled.node_seconds:.1f} node-seconds in {autoscaled.seconds:.1f} s: as "
            f"much as {autoscaled.node_seconds / autoscaled.seconds:.2f} nodes that stay\n\n"
            f"2. fixed, by `celery fleet set embed --min-nodes {size} --max-nodes {size}`"
        )
        resize(size)
        fixed = stage.run(size)
        watch.close()
        return Runs(autoscaled=autoscaled, fixed=fixed, status=autoscaler.leave())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """What both runs have in common."""

    arrivals: Sequence[Arrival]
    speed: float
    console: Console
    watch: Watch
    check: Callable[[], None]

    def run(self, nodes: int) -> Ledger:
        """Replay the arrivals, from when the fleet has so many nodes."""
        await_fleet(lambda: self.watch.fleet, nodes, within=_READY_WITHIN, check=self.check)
        with shown(self.console, limits=LIMITS, rows=MAX_NODES) as show:
            return replay(
                self.arrivals,
                CeleryClient(),
                fleet=lambda: self.watch.fleet or Fleet(),
                speed=self.speed,
                show=show,
                check=self.check,
                clock=time.monotonic,
                sleep=time.sleep,
            )


@contextmanager
def _started(interrupted: Callable[[], None]) -> Iterator[tuple[AutoscalerProcess, Watch]]:
    with ExitStack() as stack:
        # Ended in reverse: who asks, then the autoscaler and its nodes, then their broker.
        broker = stack.enter_context(EmbeddedBroker())
        interrupted()
        use_broker(broker.url)
        # Beside the socket, so that all is removed with it, or swept after a kill.
        autoscaler = AutoscalerProcess(broker.socket.parent)
        stack.callback(autoscaler.stop)
        watch = Watch()
        stack.callback(watch.close)
        yield autoscaler, watch
