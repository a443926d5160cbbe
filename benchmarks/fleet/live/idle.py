"""What an autoscaler costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet.live.kept import Autoscaler, app_settings, client_of, status_of
from benchmarks.fleet.live.model import Case, Line, Tell
from benchmarks.fleet.live.servers import Servers
from benchmarks.model import Broker

_QUEUES = (1, 100, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Processor time of the autoscaler, and of the broker that it asks, in shares of a core."""

    name: str = "idle"
    settle: float = 2.0
    window: float = 2.0

    def cases(self, broker: Broker, *, quick: bool, **_repeat: int) -> Iterator[Case]:
        for queues in _QUEUES:
            yield Case(row=self.name, broker=broker, queues=queues, samples=2 if quick else 10)

    def measure(self, case: Case, servers: Servers, tell: Tell) -> list[Line]:
        folder = servers.fresh_folder()
        settings = app_settings(servers, case.broker, folder, queues=case.queues)
        shares: list[tuple[float, float]] = []
        broker = servers.broker(case.broker)
        with Autoscaler(settings, folder) as autoscaler, client_of(settings) as client:
            autoscaler.wait_until_ready()
            # Its first readings make connections and, on RabbitMQ, the queues.
            autoscaler.wait(lambda: _is_known(client, settings.queue(0)), "reading of the backlog")
            time.sleep(self.settle)
            for count in range(case.samples):
                began, ours, theirs = time.monotonic(), autoscaler.cpu(), broker.cpu()
                time.sleep(self.window)
                took = time.monotonic() - began
                used = (autoscaler.cpu() - ours, broker.cpu() - theirs)
                shares.append((100 * used[0] / took, 100 * used[1] / took))
                tell(count + 1)
        return [
            Line(case=case, what=what, unit="% of a core", values=values)
            for what, values in zip(
                ("autoscaler", "its broker"), zip(*shares, strict=True), strict=True
            )
        ]


def _is_known(client: Any, queue: str) -> bool:
    return status_of(client, queue).get("demand") == 0
