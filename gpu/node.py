"""The memory guard in a node: what it reads, hears of, and tells.

The guard's own thread reads the devices; out-of-memory errors are heard of on the threads and
the loop that their inputs run on. Whatever goes wrong here, the node runs on without a guard.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from celery import bootsteps, signals
from celery.exceptions import Retry
from celery.utils.log import get_logger

from celery_concurrent.errors import ConcurrencyError
from celery_concurrent.gpu.device import Reading, ReadingSource
from celery_concurrent.gpu.guard import MARGIN, MemoryGuard, check_margin
from celery_concurrent.gpu.simulated import UUID, SimulatedReadings
from celery_concurrent.pool.core import NodePool
from celery_concurrent.pool.inputs import current_input
from celery_concurrent.worker.steps import NodeStep

logger = get_logger(__name__)

#: The app's setting.
SETTING: Final = "concurrent_gpu_margin"
#: Seconds between two looks at the memory.
PERIOD: Final = 1.0
#: The same while the devices do not answer.
SELDOM: Final = 10.0


def margin_of(app: Any) -> float:
    """What the app has set.

    Raises:
        ConfigurationError: a value that is no share.
    """
    margin = app.conf.get(SETTING, MARGIN)
    check_margin(SETTING, margin)
    return float(margin)


def source_of(environ: Mapping[str, str]) -> ReadingSource | None:
    """Reads the devices that this process is pinned to; None where it is pinned to none.

    A device that is pinned by its number is not watched: which one that is, depends on what
    CUDA makes of the host.
    """
    pinned = [uuid for uuid in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if uuid]
    if not pinned:
        return None
    if all(uuid.startswith(UUID) for uuid in pinned):
        return SimulatedReadings(pinned, environ)
    if not all(uuid.startswith(("GPU-", "MIG-")) for uuid in pinned):
        logger.info("device memory is not watched: CUDA_VISIBLE_DEVICES names no UUIDs")
        return None
    # The bindings are not light, and most nodes have no device.
    from celery_concurrent.gpu import nvml

    return nvml.NvmlReadings(pinned)


class GuardStep(bootsteps.StartStopStep):
    """Guards the node, from when its services have loaded until its last input has ended."""

    requires = (NodeStep,)
    label = "Guard"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._margin = margin_of(worker.app)

    def include_if(self, worker: Any) -> bool:
        return isinstance(worker.pool, NodePool) or worker.pool is None

    def start(self, worker: Any) -> None:
        if isinstance(worker.pool, NodePool):
            NodeGuard(worker.pool, source_of(os.environ), margin=self._margin).start()

    def stop(self, worker: Any) -> None:
        """The pool ends the guard itself, when it has drained: that comes after this."""


class NodeGuard:
    """Keeps one node below its limits when its devices' memory asks for that, and says so.

    Args:
        pool: the node's, with its slots.
        source: reads its devices; None where there is nothing to read. Errors of inputs are
            heard of all the same.
        margin: the share of memory that is to stay free.
    """

    def __init__(self, pool: NodePool, source: ReadingSource | None, *, margin: float) -> None:
        self._pool = pool
        self._source = source
        self._guard = MemoryGuard(
            targets={name: group.target for name, group in pool.slots.groups.items()},
            on_change=self._changed,
            margin=margin,
        )
        self._is_aside = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="concurrent-guard", daemon=True)

    def start(self) -> None:
        """Watch, and listen."""
        for signal in (signals.task_failure, signals.task_retry):
            signal.connect(self._on_error, weak=False)
        self._pool.on_closed.append(self.close)
        if self._source is not None:
            self._thread.start()

    def close(self) -> None:
        """End it. A driver that hangs is not waited for."""
        for signal in (signals.task_failure, signals.task_retry):
            signal.disconnect(self._on_error)
        self._closed.set()

    # -- on the guard's thread

    def _run(self) -> None:
        assert self._source is not None
        while True:
            self._look(self._source)
            if self._closed.wait(SELDOM if self._is_aside else PERIOD):
                break
        self._source.close()

    def _look(self, source: ReadingSource) -> None:
        try:
            readings = source.read()
        except Exception as error:  # whatever it is, the node has to serve
            self._stand_aside(error)
            return
        if self._is_aside:
            self._is_aside = False
            logger.info("device memory is watched again")
        self._pool.status.devices = _told(readings)
        self._guard.look([reading.memory for reading in readings.values()])

    def _stand_aside(self, error: Exception) -> None:
        self._pool.status.devices = None
        self._guard.stand_aside()
        if not self._is_aside:
            self._is_aside = True
            known = isinstance(error, ConcurrencyError)
            logger.warning("device memory is not watched: %s", error if known else repr(error))

    # -- on the threads of inputs

    def _on_error(self, **_: Any) -> None:
        # What the signal brings may be a stand-in: Celery replaces what cannot be pickled.
        # It sends both signals while it handles the error itself (5.6 and 5.7).
        error = sys.exc_info()[1]
        if isinstance(error, Retry):
            # It is raised while its reason is handled, or holds it.
            self._heard(error.__context__)
            self._heard(error.exc)
        else:
            self._heard(error)

    def _heard(self, error: object) -> None:
        current = current_input()
        if current is None or not isinstance(error, BaseException):
            return  # it failed before it began, or for no error
        group = self._pool.slots.groups[current.group]
        self._guard.failed(error, group.name, running=group.running)

    # -- what follows

    def _changed(self, ceilings: Mapping[str, int], reason: str | None) -> None:
        """With the guard's lock held."""
        self._pool.hold(ceilings)
        self._pool.status.notes(reason)
        if reason is None:
            logger.info("device memory is back: this node runs up to its limits again")
        else:
            logger.warning("this node runs fewer inputs: %s", reason)


def _told(readings: Mapping[str, Reading]) -> dict[str, dict[str, Any]]:
    return {
        uuid: {
            "name": reading.name,
            "free": None if reading.memory is None else reading.memory.free,
            "total": None if reading.memory is None else reading.memory.total,
            "utilisation": reading.utilisation,
        }
        for uuid, reading in readings.items()
    }
