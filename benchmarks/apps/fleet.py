"""An app with many fleets; its inputs note when they start, and may be told to go on running."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from celery import Celery
from celery.signals import celeryd_init

from benchmarks.fleet.live.settings import FleetSettings
from benchmarks.probe import Probe
from benchmarks.processes import die_with_parent
from celery_concurrent import concurrent, scaling

settings = FleetSettings.from_env()
_probe = Probe(settings.probe) if settings.probe else None
_WINDOW = 0.5

app = Celery("bench-fleet", broker=settings.broker_url, backend=settings.result_url)

# The kernel ends template and autoscaler with the benchmark, and so the nodes that they started.
celeryd_init.connect(lambda **_kwargs: die_with_parent(), weak=False)


def _body() -> Callable[..., Awaitable[None]]:
    """A function of its own for each fleet: each has its own limit."""

    async def note(index: int, flag: str | None = None) -> None:
        assert _probe is not None
        _probe.begin(index)
        while flag is not None and not os.path.exists(flag):  # noqa: ASYNC110,ASYNC240,PTH110 - quick
            await asyncio.sleep(0.02)
        _probe.end(index)

    return note


for _number in range(settings.queues):
    app.task(name=settings.queue(_number), queue=settings.queue(_number))(
        scaling(
            min_nodes=settings.min_nodes, max_nodes=settings.max_nodes, scaledown_window=_WINDOW
        )(concurrent(max_inputs=settings.max_inputs)(_body()))
    )
