"""The replay: publish each input when it arrived in the trace, look, show, until all is settled."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.demo.errors import StalledError
from celery_concurrent.demo.fleet import Fleet
from celery_concurrent.demo.measure import Ledger, Snapshot

LOOK_INTERVAL = 0.2
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the result store has for an input; the times are on the monotonic clock."""

    node: str = ""
    started: float | None = None
    ended: float | None = None
    error: str | None = None


class Client(Protocol):
    """The queue and its results, as the replay sees them."""

    def publish(self, arrival: Arrival) -> str:
        """Hand in one input; its id."""

    def results(self, input_ids: Collection[str]) -> Mapping[str, Result]:
        """The results there are for these inputs."""


def replay(
    arrivals: Sequence[Arrival],
    client: Client,
    *,
    fleet: Callable[[], Fleet],
    speed: float,
    show: Callable[[Snapshot], None],
    check: Callable[[], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Ledger:
    """Replay the arrivals at ``speed`` times their pace; return when each has its result.

    What runs an input takes its own time, which is not sped up. ``fleet`` tells the fleet as it
    is now. ``check`` is called at every look and raises to end the replay.
    :class:`StalledError` if no result came for twenty seconds longer than the longest input
    can take.
    """
    ledger = Ledger(total=len(arrivals))
    todo = deque(arrivals)
    patience = _PATIENCE + max((arrival.seconds for arrival in arrivals), default=0.0)
    epoch = next_look = heard = clock()

    def due() -> float:
        return epoch + todo[0].at / speed if todo else math.inf

    while True:
        # Late publishing must not hold up the looks.
        while due() <= clock() < next_look:
            arrival, now = todo.popleft(), clock()
            input_id = client.publish(arrival)
            ledger.publish(input_id, due=arrival.at / speed, now=now - epoch)
        if clock() >= next_look:
            check()
            results = client.results(ledger.outstanding)
            now = clock()
            _settle(ledger, results, epoch)
            snapshot = ledger.snapshot(elapsed=now - epoch, fleet=fleet())
            show(snapshot)
            if results or (todo and not ledger.outstanding):
                heard = now
            if not todo and not ledger.outstanding:
                return ledger
            if ledger.outstanding and now - heard > patience:
                raise _stalled(snapshot, len(ledger.outstanding), silence=now - heard)
            next_look = now + LOOK_INTERVAL
        sleep(max(0.0, min(due(), next_look) - clock()))


def _stalled(snapshot: Snapshot, outstanding: int, *, silence: float) -> StalledError:
    fleet = snapshot.fleet
    return StalledError(
        f"{outstanding} of {snapshot.total} inputs have no result, and none came for "
        f"{silence:.0f} s (backlog {fleet.backlog}, running {fleet.running}, {fleet.counted()})"
    )


def _settle(ledger: Ledger, results: Mapping[str, Result], epoch: float) -> None:
    for input_id, result in results.items():
        if result.started is None or result.ended is None:
            ledger.settle(input_id, error=result.error or "no times in the result")
        else:
            ledger.settle(
                input_id,
                node=result.node,
                started=result.started - epoch,
                ended=result.ended - epoch,
            )
