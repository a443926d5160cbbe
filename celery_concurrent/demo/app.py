"""The demo's Celery app: a service whose nodes run up to 26 inputs at once on a GPU each.

The autoscaler and its nodes import it as they import any app; the broker's address comes in the
environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import threading
import time
from typing import Any

from celery import Celery, current_task
from celery.signals import celeryd_init

from celery_concurrent import concurrent, enter, method, scaling, service
from celery_concurrent.limits import Limits

#: Names a file that the demo keeps locked for as long as it lives.
LEASH_VARIABLE = "CELERY_CONCURRENT_DEMO_LEASH"
QUEUE = "embed"
LIMITS = Limits(max_inputs=26, target_inputs=20)
MIN_NODES = 1
MAX_NODES = 6
LOAD_SECONDS = 0.3

app = Celery("demo")
app.conf.update(broker_connection_retry_on_startup=True, task_default_queue=QUEUE)


@service(app, queue=QUEUE)
@scaling(min_nodes=MIN_NODES, max_nodes=MAX_NODES, scaledown_window=1.5, gpus=1)
@concurrent(max_inputs=LIMITS.max_inputs, target_inputs=LIMITS.target)
class Embed:
    """Stands in for a model on a GPU: waits as long as it would work."""

    @enter
    async def load(self) -> None:
        await asyncio.sleep(LOAD_SECONDS)

    @method
    async def vectors(self, seconds: float) -> list[Any]:
        """The node that ran the input, and when it started and ended there.

        Times are on the monotonic clock, which all processes of one machine share.
        """
        started = time.monotonic()
        await asyncio.sleep(seconds)
        return [current_task.request.hostname, started, time.monotonic()]


@celeryd_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _take_leash(**_: Any) -> None:
    """Nodes outlive their autoscaler, for the next one to adopt. The demo has no next one."""
    leash = os.environ.get(LEASH_VARIABLE)
    if leash is not None:
        thread = threading.Thread(target=_end_with_demo, args=(leash,), daemon=True)
        thread.start()


def _end_with_demo(leash: str) -> None:
    # No file: the demo is gone, and tidied up after.
    with contextlib.suppress(FileNotFoundError):
        # Granted when the demo lets go or is gone, and never before.
        fcntl.flock(os.open(leash, os.O_RDONLY), fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGKILL)
