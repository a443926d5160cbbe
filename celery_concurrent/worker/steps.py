"""The worker's own step: the node's size, and its services, before anything is fetched."""

from __future__ import annotations

import gc
import inspect
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.components import Pool

from celery_concurrent import routing
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import findings
from celery_concurrent.marks import mark_of
from celery_concurrent.pool.core import NodePool
from celery_concurrent.pool.hooks import Hook
from celery_concurrent.pool.slots import PLAIN, Slots
from celery_concurrent.services import Service, services_of
from celery_concurrent.worker.telling import TellStep

logger = get_logger(__name__)


class NodeStep(bootsteps.StartStopStep):
    """Sizes the pool by the consumed queues; loads the services of these queues."""

    requires = (Pool, TellStep)  # loading is told, too
    label = "Node"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._loaded: list[Service] = []

    def include_if(self, worker: Any) -> bool:
        return isinstance(worker.pool, NodePool) or worker.pool is None

    def create(self, worker: Any) -> None:
        pool = worker.pool
        if not isinstance(pool, NodePool):
            return
        cap = worker.options.get("concurrency") or worker.app.conf.worker_concurrency
        cap = _checked_cap(cap)
        groups = routing.groups_by_queue(worker.app, PLAIN)
        counted = set()
        for queue in worker.app.amqp.queues.consume_from:
            counted |= groups.get(queue, {PLAIN})
        pool.size(
            Slots(
                routing.limits_by_group(worker.app),
                plain=worker.concurrency if isinstance(worker.concurrency, int) else 1,
                cap=cap,
                counted=counted,
            )
        )
        worker.concurrency = worker.min_concurrency = pool.slots.total  # the banner's figure

    def start(self, worker: Any) -> None:
        """Run each service's enter; an error stops the worker, with exit code 1."""
        pool = worker.pool
        consumed = set(worker.app.amqp.queues.consume_from)
        _tell_of_unmarked_coroutines(worker.app)
        _tell_of_other_queues(worker.app, consumed)
        for finding in findings(worker.app):
            if finding.queue in consumed:
                logger.warning("%s", finding.text)
        for service in services_of(worker.app):
            if not any(routing.queue_of(worker.app, task) in consumed for task in service.tasks):
                continue
            logger.info("loading service %s", service.name)
            try:
                service.load(lambda hook: _wait(pool.run_hook(hook)))
            except Exception:
                self._close(pool)
                pool.stop()  # Celery stops nothing of a worker that has not started
                raise
            self._loaded.append(service)
        pool.on_drained.append(lambda: self._close(pool))
        # What the node has loaded stays, and every full collection would look through it: an
        # eighth of what a short input costs.
        gc.collect()
        gc.freeze()

    def stop(self, worker: Any) -> None:
        """The pool closes the services itself, between draining and the end of its runners."""

    def _close(self, pool: NodePool) -> None:
        while self._loaded:
            service = self._loaded.pop()
            try:
                service.close(lambda hook: _wait(pool.run_hook(hook), interruptible=False))
            except Exception:
                logger.exception("closing service %s failed", service.name)


def _wait(hook: Hook, *, interruptible: bool = True) -> None:
    """Wait for a hook of the user's; Ctrl-C and SIGTERM work meanwhile."""
    while not hook.wait(0.2):
        if interruptible:
            worker_state.maybe_shutdown()


def _checked_cap(cap: Any) -> int | None:
    if cap in (None, "auto"):
        return None
    try:
        return max(1, int(cap))
    except ValueError:
        raise ConfigurationError(
            f"worker_concurrency={cap!r} must be an int: it caps the node below its slots"
        ) from None


def _tell_of_unmarked_coroutines(app: Any) -> None:
    for task in app.tasks.values():
        run = inspect.unwrap(getattr(task, "_orig_run", task.run))
        if mark_of(task) is None and inspect.iscoroutinefunction(run):
            logger.warning(
                "%s is async def and has no @concurrent(max_inputs=...): Celery cannot await it, "
                "its inputs will fail",
                task.name,
            )


def _tell_of_other_queues(app: Any, consumed: set[str]) -> None:
    """No mistake for a node of plain tasks, or of calls that name a queue, so no warning."""
    queues = {routing.queue_of(app, task) for task in app.tasks.values() if mark_of(task)}
    if queues and not queues & consumed:
        logger.info(
            "no concurrent task is routed to the queues of this node (%s): those of the app are "
            "on %s, which -Q names",
            ", ".join(sorted(consumed)),
            ", ".join(sorted(queues)),
        )
