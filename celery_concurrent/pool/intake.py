"""Making inputs of the requests that Celery hands over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping
from typing import Any

from celery_concurrent.marks import mark_of
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.shortcuts import decoded_once
from celery_concurrent.pool.slots import PLAIN
from celery_concurrent.redis.messages import HeldMessage


class Intake:
    """Makes inputs.

    Args:
        app: the Celery app of the node.
        options: the pool's: ``timeout`` and ``soft_timeout`` are the time limits of the command
            line, for inputs that have none.
    """

    def __init__(self, app: Any, options: Mapping[str, Any]) -> None:
        self._app = app
        self._options = options
        self._tokens = itertools.count(1)

    def input_of(
        self,
        request: Any,
        target: Callable[..., Any],
        args: Any,
        *,
        groups: Container[str],
        soft_limit: float | None,
        hard_limit: float | None,
    ) -> Input:
        """The input of a request.

        Args:
            request: Celery's.
            target: the tracer.
            args: what it is to be called with.
            groups: those that have slots in this node.
            soft_limit, hard_limit: the request's, seconds.
        """
        task = request.task
        mark = mark_of(task)
        if isinstance(request.message, HeldMessage):
            request.message.share_headers(request.request_dict)
        group = PLAIN if mark is None else mark.group_of(task)
        return Input(
            id=request.id,
            name=request.name,
            root_id=request.root_id or request.id,
            # One that was marked after the node had started has no slots of its own.
            group=group if group in groups else PLAIN,
            is_async=mark is not None and mark.is_async,
            target=target,
            args=decoded_once(request, args),
            request=request,
            token=next(self._tokens),
            soft_limit=soft_limit or self._options.get("soft_timeout"),
            hard_limit=hard_limit or self._options.get("timeout"),
        )

    def counts_early(self, request: Any) -> bool:
        """Whether it counts as fetched, though it is acknowledged before it runs.

        Tasks without the decorator keep Celery's rule, worker_prefetch_multiplier.
        """
        if request.task.acks_late:
            return False
        return mark_of(request.task) is not None or bool(self._app.conf.worker_disable_prefetch)
