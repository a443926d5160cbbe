"""How the pools come into Celery's worker: the name ``concurrent``, and what it brings along.

Receivers of ``worker_init`` run after the queues are selected and before the worker's steps are
put together: there the pool's class is known, and steps and the consumer's class can be given.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from celery import concurrency, signals
from celery.concurrency import get_implementation
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.utils.text import str_to_list

from celery_concurrent.marks import mark_of
from celery_concurrent.routing import own_queues

logger = get_logger(__name__)

NAME = "concurrent"
POOL = "celery_concurrent.pool.concurrent:TaskPool"
EVENTLET_POOL = "celery_concurrent.pool.eventlet:TaskPool"

#: By worker, whether it was given queues, and those that it is not to consume.
_chosen: WeakKeyDictionary[Any, tuple[bool, frozenset[str]]] = WeakKeyDictionary()


def install() -> None:
    """Register the pool's name and the receiver; doing it twice changes nothing."""
    concurrency.ALIASES.setdefault(NAME, POOL)
    signals.celeryd_init.connect(_on_celeryd_init, dispatch_uid="celery-concurrent-options")
    signals.worker_init.connect(_on_worker_init, dispatch_uid="celery-concurrent-init")
    signals.worker_ready.connect(_on_worker_ready, dispatch_uid="celery-concurrent-ready")


def extend_command_line() -> None:
    """Let ``celery worker -P`` accept the name: its choices were made before (5.6, 5.7)."""
    from celery.bin import worker

    if NAME not in worker.WORKERS_POOL.choices:
        worker.WORKERS_POOL.choices = (*worker.WORKERS_POOL.choices, NAME)


def _on_celeryd_init(instance: Any, options: Any, **_: Any) -> None:
    """Keep what the worker itself does not: the queues of ``-Q`` and ``-X``."""
    excluded = str_to_list(options.get("exclude_queues"))
    _chosen[instance] = bool(options.get("queues")), frozenset(excluded or ())


def _on_worker_init(sender: Any, **_: Any) -> None:
    worker = sender
    _consume_own_queues(worker)
    pool = get_implementation(worker.pool_cls)
    if _is_eventlets(pool) and _concurrent_tasks(worker.app):
        pool = get_implementation(EVENTLET_POOL)
    if not _is_ours(pool):
        return
    worker.pool_cls = pool
    _cap_instead_of_autoscaling(worker)
    from celery_concurrent import logs
    from celery_concurrent.worker import commands  # noqa: F401  # registers them
    from celery_concurrent.worker.consumer import LaneStep, NodeConsumer
    from celery_concurrent.worker.steps import NodeStep
    from celery_concurrent.worker.telling import TellStep

    worker.consumer_cls = _with_lanes(symbol_by_name(worker.consumer_cls), NodeConsumer)
    worker.app.steps["worker"].update((TellStep, NodeStep))
    worker.app.steps["consumer"].add(LaneStep)
    # The lanes' limits hold on every connection: nothing is to be restored gradually.
    worker.app.conf.worker_enable_prefetch_count_reduction = False
    logs.install(worker.app)


def _consume_own_queues(worker: Any) -> None:
    """Without ``-Q`` a worker of any pool consumes what ``queue_per_task`` made, as well.

    The user has named none of these queues, so nobody would think of naming them here, and
    inputs would wait for ever. A worker that is no program (Celery's own test worker) has not
    told its options; there a selection is what ``-Q`` leaves in the app (5.6 and 5.7).
    """
    queues = worker.app.amqp.queues
    was_given, excluded = _chosen.get(worker, (queues._consume_from is not None, frozenset()))
    if was_given:
        return
    if not hasattr(queues, "_default_consume_from"):
        # In 5.6 a worker also consumes every queue that anybody has looked up by then.
        queues.select([name for name in queues.consume_from if name not in excluded])
    for name in own_queues(worker.app):
        if name not in excluded and name not in queues.consume_from:
            queues.select_add(queues[name])


def _cap_instead_of_autoscaling(worker: Any) -> None:
    """``--autoscale=50,5`` caps the node at 50, as ``-c 50`` does.

    Celery's autoscaler starts and ends processes by what is reserved beyond them; here a slot that
    is free costs nothing. The options are those that the worker's steps are about to get (5.6 and
    5.7).
    """
    autoscale = worker.options.pop("autoscale", None)
    if autoscale:
        most = autoscale.partition(",")[0] if isinstance(autoscale, str) else max(autoscale)
        worker.options["concurrency"] = int(most)


def _with_lanes(chosen: type, ours: type) -> type:
    """The worker's consumer class, ours; one that the user has set stays in it."""
    from celery.worker.consumer import Consumer

    if issubclass(chosen, ours):
        return chosen
    if chosen is Consumer:
        return ours
    return type(chosen.__name__, (ours, chosen), {})


def _is_ours(pool: Any) -> bool:
    from celery_concurrent.pool.core import NodePool

    return isinstance(pool, type) and issubclass(pool, NodePool)


def _is_eventlets(pool: Any) -> bool:
    return getattr(pool, "__module__", "") == "celery.concurrency.eventlet"


def _concurrent_tasks(app: Any) -> list[str]:
    return sorted(task.name for task in app.tasks.values() if mark_of(task) is not None)


def _on_worker_ready(sender: Any, **_: Any) -> None:
    """Say once, when logging works, that another pool does not do what the tasks ask for."""
    pool = type(sender.pool)
    names = [] if _is_ours(pool) else _concurrent_tasks(sender.app)
    if names:
        logger.warning(
            "%d concurrent task(s) (%s%s) run in the %s pool, which does not keep max_inputs "
            "and runs the inputs of async tasks one by one: start the worker with -P concurrent",
            len(names),
            ", ".join(names[:3]),
            ", ..." if len(names) > 3 else "",
            pool.__module__.rpartition(".")[2],
        )
