"""What the app's tasks and routes say of its queues, and a router that gives each its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery, current_app
from celery.utils.functional import maybe_evaluate
from celery.utils.log import get_logger

from celery_concurrent.limits import Limits
from celery_concurrent.marks import mark_of

logger = get_logger(__name__)

#: Options of a task or a call that say where it goes.
_DESTINATION: Final = ("queue", "exchange", "routing_key")


def queue_per_task(  # the signature is Celery's
    name: str,
    args: Any,  # noqa: ARG001  # it does not depend on them
    kwargs: Any,  # noqa: ARG001
    options: Mapping[str, Any],
    task: Any = None,
    **_: Any,
) -> dict[str, str] | None:
    """Route each concurrent task to a queue of its name, the methods of a service to one queue.

    For the setting ``task_routes``: ``["celery_concurrent.routing.queue_per_task"]``. A task,
    or a call, that names a queue goes there; tasks without ``@concurrent`` are left to the
    next router, as are those that the publishing app does not have.
    """
    if any(options.get(option) is not None for option in _DESTINATION):
        return None
    queue = _own_queue(current_app.tasks.get(name) if task is None else task)
    return None if queue is None else {"queue": queue}


def _own_queue(task: Any) -> str | None:
    """The queue that :func:`queue_per_task` gives a task; None when it gives it none."""
    mark = mark_of(task)
    if mark is None or any(getattr(task, option, None) for option in _DESTINATION):
        return None
    return mark.group_of(task)


def own_queues(app: Celery) -> list[str]:
    """The queues that :func:`queue_per_task` makes in this app; none where it does not use it."""
    if not any(maybe_evaluate(route) is queue_per_task for route in app.amqp.routes):
        return []
    queues = {
        queue
        for task in app.tasks.values()
        # A router before this one may send it elsewhere.
        if (queue := _own_queue(task)) is not None and route_of(app, task) == queue
    }
    return sorted(queues)


def group_of(task: Any, plain: str) -> str:
    """The group whose slots a task's inputs take."""
    mark = mark_of(task)
    return plain if mark is None else mark.group_of(task)


def limits_by_group(app: Any) -> dict[str, Limits]:
    """The limits of every concurrent function and service of the app."""
    return {
        mark.group_of(task): mark.limits
        for task in app.tasks.values()
        if (mark := mark_of(task)) is not None
    }


def route_of(app: Any, task: Any) -> str | None:
    """The queue that a call of the task without options goes to; None when it cannot be told."""
    try:
        options = {"queue": task.queue} if getattr(task, "queue", None) else {}
        route = app.amqp.router.route(options, task.name, (), {}, task_type=task)
    except Exception as error:  # routers are user code, and may need an input's arguments
        logger.debug("the route of %s cannot be told: %r", task.name, error)
        return None
    queue = route.get("queue", app.conf.task_default_queue)
    return str(getattr(queue, "name", queue) or app.conf.task_default_queue)


def queue_of(app: Any, task: Any) -> str:
    """The same, and the default queue when it cannot be told."""
    return route_of(app, task) or str(app.conf.task_default_queue)


def groups_by_queue(app: Any, plain: str) -> dict[str, set[str]]:
    """By queue, the groups of the tasks that are routed to it; Celery's own tasks left out."""
    groups: dict[str, set[str]] = defaultdict(set)
    for task in app.tasks.values():
        if not task.name.startswith("celery."):
            groups[queue_of(app, task)].add(group_of(task, plain))
    return dict(groups)
