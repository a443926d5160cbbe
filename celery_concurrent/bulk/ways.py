"""Whether one template stands for all inputs, or Celery has to publish each by itself.

Celery's own way is always right. The template is, where nothing that is called per message
could tell one input from the next, or wants to see it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from celery import signals
from celery.app import amqp as celery_amqp
from celery.app import base as celery_base
from celery.app import task as celery_task
from celery.app.routes import MapRoute
from celery.utils.functional import maybe_evaluate
from kombu import Queue

from celery_concurrent import sent
from celery_concurrent.origins import is_from
from celery_concurrent.pool.hops import Hopper
from celery_concurrent.routing import queue_per_task

#: Options of ``apply_async`` that are the same for each input, by their nature.
SAME_FOR_ALL = frozenset(
    {
        "argsrepr",
        "compression",
        "confirm_timeout",
        "countdown",
        "delivery_mode",
        "eta",
        "exchange",
        "exchange_type",
        "expires",
        "headers",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "mandatory",
        "parent_id",
        "priority",
        "queue",
        "reply_to",
        "retries",
        "retry",
        "retry_policy",
        "root_id",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "time_limit",
        "timeout",
    }
)


def why_one_by_one(task: Any, options: Mapping[str, Any]) -> str | None:
    """Why Celery has to publish each input by itself; None when a template will do."""
    return next(_reasons(task, options), None)


def _reasons(task: Any, options: Mapping[str, Any]) -> Iterator[str]:
    app = task.app
    if app.conf.task_always_eager:
        yield "task_always_eager is on"
    known = SAME_FOR_ALL | set(options.get("stamped_headers") or ())
    if unknown := sorted(options.keys() - known):
        yield f"of the option {unknown[0]!r}"
    if isinstance(options.get("reply_to"), Queue):
        yield "reply_to is a queue"
    yield from _overrides(task)
    for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent):
        if sent.has_other_receivers(signal, task.name):
            yield f"the signal {signal.name} has receivers"
    if app.conf.task_send_sent_event:
        yield "task_send_sent_event is on"
    for route in app.amqp.routes:
        router = maybe_evaluate(route)
        if type(router) is not MapRoute and router is not queue_per_task:
            yield f"the router {router!r} may look at an input's arguments"


def _overrides(task: Any) -> Iterator[str]:
    """What of Celery's own is not Celery's own here."""
    app = task.app
    send_task = app.send_task
    if _is_hopping(send_task):  # a node's: the same call, made from another thread
        send_task = send_task.args[0]
    own = (
        ("apply_async", task.apply_async, celery_task),
        ("shadow_name", task.shadow_name, celery_task),
        ("send_task", send_task, celery_base),
        ("create_task_message", app.amqp.create_task_message, celery_amqp),
        ("send_task_message", app.amqp.send_task_message, celery_amqp),
    )
    for name, function, module in own:
        if not is_from(function, module):
            yield f"{name} is overridden"
    # Pydantic models in the arguments become dicts before anything else is made of them.
    if getattr(task, "_dump_pydantic_arguments", None) is not None:
        yield "pydantic dumps its arguments"


def _is_hopping(function: Any) -> bool:
    return isinstance(function, functools.partial) and isinstance(
        getattr(function.func, "__self__", None), Hopper
    )
