"""How a consumer handles a message, and drops one that Celery did not expect.

Celery's internals that are used here (5.6 and 5.7): ``Consumer.create_task_handler``, its
``promise`` (see :mod:`.settling`), and ``on_invalid_task``.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from celery_concurrent.pool.shortcuts import decode_quickly
from celery_concurrent.worker.connecting import ConnectingConsumer, node_pool
from celery_concurrent.worker.settling import SettlingCall

logger = get_logger(__name__)


class ReceivingConsumer(ConnectingConsumer):
    """Drops a message that it would end the worker with."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's own, that drops what it would end the worker with."""
        create = super().create_task_handler
        if "promise" in signature(create).parameters:  # a base of the user's own may not take it
            kwargs.setdefault("promise", SettlingCall)
        handle = create(*args, **kwargs)
        broken = (*self.connection_errors, *self.channel_errors)

        def handle_or_drop(message: Any) -> None:
            try:
                decode_quickly(message)
                _check_form(message)
                handle(message)
            except KeyError as error:  # a header is missing; kombu's Redis counts it among `broken`
                self._drop(message, error)
            except broken:
                raise
            except Exception as error:
                self._drop(message, error)

        return handle_or_drop

    def _drop(self, message: Any, error: Exception) -> None:
        """A message whose body or headers Celery did not expect, such as one without an id."""
        if node_pool(self).engine.has(message):
            logger.error("telling of an input failed", exc_info=error)
            return
        for request in list(worker_state.reserved_requests):
            if request.message is message:
                worker_state.task_ready(request)
        self.on_invalid_task(None, message, error)


def _check_form(message: Any) -> None:
    """Refuse a body that has the form of no call, which would fail where inputs are settled.

    Raises:
        InvalidTaskError: args, kwargs or the embedded options are none.
    """
    try:
        payload = message.payload
    except Exception:  # it cannot be decoded: Celery's handler says so
        return
    if isinstance(payload, list | tuple) and not (
        len(payload) == 3
        and isinstance(payload[0], list | tuple)
        and isinstance(payload[1], dict)
        and isinstance(payload[2], dict | None)
    ):
        raise InvalidTaskError("its body is no call: [args, kwargs, embedded options]")
