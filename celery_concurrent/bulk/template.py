"""One template per task: what Celery would send for its inputs, found out once.

Celery's own ``apply_async`` makes the first message, with a producer that keeps it. All that is
the same for every input of the map (destination, options, headers, links, the route) is taken
from there; the rest is filled in by :meth:`Template.draft`: the ids, the arguments, what logs
show of them. The template proves itself on that first message: unless its draft equals what
Celery made, field by field, there is none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

from celery.utils.saferepr import saferepr
from kombu import Producer
from kombu.compression import compress
from kombu.serialization import dumps
from kombu.utils.uuid import uuid

from celery_concurrent import tracing
from celery_concurrent.bulk.reprs import args_repr
from celery_concurrent.sent import SENT_AT

#: Celery's, where 5.6 has no setting for it.
REPR_LEVELS = 3


class Draft(NamedTuple):
    """What differs from one message to the next, encoded."""

    input_id: str
    payload: Any
    headers: dict[str, Any]
    properties: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What all messages of the map have in common: the arguments of kombu's ``_publish``."""

    priority: Any
    content_type: str
    content_encoding: str
    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool
    declare: list[Any]
    timeout: float | None
    confirm_timeout: float | None
    retry: bool
    retry_policy: dict[str, Any]


class _RecordedError(Exception):
    """Stops Celery where it would send: nothing after that happens, signals least of all."""


_SIGNATURE = signature(Producer._publish)


class _Recorder(Producer):
    """Takes a producer's place, and keeps what it should publish (kombu 5.7)."""

    body: Any
    encoding: tuple[Any, Any]
    draft: Draft
    envelope: Envelope

    def publish(self, body: Any, **options: Any) -> None:
        self.body = body
        serializer, compression = options["serializer"], options["compression"]
        self.encoding = serializer or self.serializer, compression or self.compression
        super().publish(body, **options)

    def _publish(self, *args: Any, **kwargs: Any) -> None:
        said = _SIGNATURE.bind(self, *args, **kwargs).arguments
        headers, properties = said["headers"], said["properties"]
        self.draft = Draft(properties["correlation_id"], said["body"], headers, properties)
        self.envelope = Envelope(**{field.name: said[field.name] for field in fields(Envelope)})
        raise _RecordedError


class Template:
    """What Celery would send for the inputs of a task.

    Args:
        task: a registered task.
        options: as for ``apply_async``.
        producer: on whose connection the messages will go out.
        args: of any input of the task.
        kwargs: of the same input.
    """

    def __init__(
        self,
        task: Any,
        options: Mapping[str, Any],
        producer: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        recorder = _Recorder(producer.connection, serializer=producer.serializer)
        input_id = uuid()
        try:
            with tracing.for_many():
                task.apply_async(args, kwargs, task_id=input_id, producer=recorder, **options)
        except _RecordedError:
            pass
        finally:
            _unsubscribe(task.app.backend, input_id)
        self._check = getattr(task, "__header__", None) if task.typing else None
        self._said = {name for name in ("argsrepr", "kwargsrepr") if name in options}
        self._body = recorder.body
        self._serializer, self._compression = recorder.encoding
        self._first = recorder.draft
        amqp, conf = task.app.amqp, task.app.conf
        self._levels = conf.get("task_repr_maxlevels", REPR_LEVELS)
        self._longest = amqp.argsrepr_maxsize
        self._kwargs_repr = partial(
            saferepr, maxlen=amqp.kwargsrepr_maxsize, maxlevels=self._levels
        )
        self._no_kwargs = self._kwargs_repr({})
        #: What all messages have in common.
        self.envelope = recorder.envelope
        #: Whether drafts are what Celery would send.
        self.is_faithful = self._is_like_the_first(self.draft(input_id, args, kwargs))

    def draft(self, input_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Draft:
        """The message of one input.

        Raises:
            TypeError: the task does not take these arguments.
            kombu.exceptions.EncodeError: they cannot be serialized.
        """
        if self._check is not None:
            self._check(*args, **kwargs)
        body, headers = self._body, self._first.headers.copy()
        if isinstance(body, tuple):  # Celery's message protocol 2
            body = (args, kwargs, body[2])
            if headers["root_id"] == headers["id"]:
                headers["root_id"] = input_id
            headers["id"] = input_id
            if SENT_AT in headers:
                headers[SENT_AT] = time.time()
            self._show(headers, args, kwargs)
        else:
            body = {**body, "id": input_id, "args": args, "kwargs": kwargs}
        _, _, payload = dumps(body, serializer=self._serializer)
        if self._compression:
            payload, headers["compression"] = compress(payload, self._compression)
        properties = {**self._first.properties, "correlation_id": input_id}
        return Draft(input_id, payload, headers, properties)

    def _show(self, headers: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "argsrepr" not in self._said:
            headers["argsrepr"] = args_repr(args, longest=self._longest, levels=self._levels)
        if "kwargsrepr" not in self._said:
            headers["kwargsrepr"] = self._kwargs_repr(kwargs) if kwargs else self._no_kwargs

    def _is_like_the_first(self, draft: Draft) -> bool:
        # But for when it was sent, which is now.
        if SENT_AT in self._first.headers:
            draft.headers[SENT_AT] = self._first.headers[SENT_AT]
        return draft == self._first


def _unsubscribe(backend: Any, input_id: str) -> None:
    """Celery has Redis tell of the result of each input that it publishes: not of this one."""
    consumer = getattr(backend, "result_consumer", None)
    if consumer is not None and input_id and getattr(consumer, "subscribed_to", None):
        consumer.cancel_for(input_id)
