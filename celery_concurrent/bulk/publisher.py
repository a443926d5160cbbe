"""Publishes inputs of one task, a chunk at a time, and keeps account of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery.backends.base import Backend
from celery.backends.redis import RedisBackend
from celery.utils.log import get_logger
from kombu.exceptions import EncodeError
from kombu.utils.uuid import uuid

from celery_concurrent.bulk.account import Account
from celery_concurrent.bulk.calls import Call
from celery_concurrent.bulk.sending import Chunk, Send, acquired, send, sender_for
from celery_concurrent.bulk.template import Draft, Template
from celery_concurrent.bulk.ways import why_one_by_one
from celery_concurrent.errors import PublishError

logger = get_logger(__name__)

#: Options whose meaning is a moment: counted from each chunk, not from the first.
FROM_NOW = ("countdown", "eta", "expires")
#: These need nothing done before a message goes out. Others declare the queue that results come
#: by. Redis' would subscribe to each result, which here is done by who waits.
NOTHING_TO_ANNOUNCE = (Backend.on_task_call, RedisBackend.on_task_call)


class Publisher:
    """Publishes inputs of one task.

    Args:
        task: a registered task.
        options: as for ``apply_async``.
        account: is told where each input is, whatever happens.
        add_to_parent: inside of an input, list the inputs as its children.
    """

    def __init__(
        self, task: Any, options: Mapping[str, Any], account: Account, *, add_to_parent: bool
    ) -> None:
        self._task = task
        self._options = dict(options)
        self._account = account
        self._add_to_parent = add_to_parent
        self._template: Template | None = None
        self._dated = bool(task.expires) or any(options.get(name) for name in FROM_NOW)
        self._reason = why_one_by_one(task, self._options)
        self._is_told = False

    def publish(self, calls: Sequence[Call]) -> None:
        """Publish some inputs.

        Raises:
            PublishError: not all of them were published.
        """
        if self._reason is None and self._publish_together(calls):
            return
        if not self._is_told:
            self._is_told = True
            logger.info("publishing %s one by one: %s", self._task.name, self._reason)
        for call in calls:
            self._publish_one(call)

    def _publish_one(self, call: Call) -> None:
        number, args, kwargs = call
        options = {"add_to_parent": self._add_to_parent, **self._options}
        input_id = uuid()
        self._account.uncertain[number] = self._handle(input_id)
        try:
            handle = self._task.apply_async(args, kwargs, task_id=input_id, **options)
        except Exception as error:
            if isinstance(error, (EncodeError, TypeError)):  # as one that never was sent
                del self._account.uncertain[number]
            raise self._error(number, error) from error
        self._account.published[number] = handle
        del self._account.uncertain[number]

    def _publish_together(self, calls: Sequence[Call]) -> bool:
        """False, and nothing is done, when there is no template for these inputs."""
        with acquired(self._task.app) as producer:
            way = sender_for(producer)
            if way is None:
                self._reason = "the transport cannot take several at once"
                return False
            drafts: list[Draft] = []
            failed: tuple[int, Exception] | None = None
            for number, args, kwargs in calls:
                try:
                    if self._template is None or (self._dated and not drafts):
                        self._template = Template(self._task, self._options, producer, args, kwargs)
                    drafts.append(self._template.draft(uuid(), args, kwargs))
                except Exception as error:
                    failed = number, error
                    break
                if not self._template.is_faithful:
                    self._reason = "its messages are not like the template's"
                    return False
            if self._template is not None and drafts:
                self._send(way, producer, self._template, calls, drafts)
        if failed is not None:
            raise self._error(*failed) from failed[1]
        return True

    def _send(
        self,
        way: Send,
        producer: Any,
        template: Template,
        calls: Sequence[Call],
        drafts: Sequence[Draft],
    ) -> None:
        self._announce(producer, drafts)
        chunk = Chunk(drafts)
        self._account.follow(chunk, [number for number, _, _ in calls], self._handle)
        try:
            send(way, producer, template.envelope, chunk)
        except Exception as error:
            message = f"inputs of {self._task.name} were not all published: {error!r}"
            raise self._account.error(message) from error
        finally:
            self._account.settle()
            self._tell_parent(number for number, _, _ in calls)
        if self._account.refused:
            count = len(self._account.refused)
            raise self._account.error(f"the broker refused {count} inputs of {self._task.name}")

    def _announce(self, producer: Any, drafts: Sequence[Draft]) -> None:
        backend = self._task.app.backend
        real = getattr(backend, "real", backend)
        if self._ignores or type(real).on_task_call in NOTHING_TO_ANNOUNCE:
            return
        for draft in drafts:
            real.on_task_call(producer, draft.input_id)

    def _tell_parent(self, numbers: Iterable[int]) -> None:
        """Inside of an input, list those that are published as its children."""
        parent = self._task.app.current_worker_task if self._add_to_parent else None
        if parent is None:
            return
        for number in numbers:
            if (handle := self._account.published.get(number)) is not None:
                parent.add_trail(handle)

    @property
    def _ignores(self) -> Any:
        return self._options.get("ignore_result", self._task.ignore_result)

    def _handle(self, input_id: str) -> Any:
        handle = self._task.AsyncResult(input_id)
        handle.ignored = self._ignores
        return handle

    def _error(self, number: int, error: Exception) -> PublishError:
        return self._account.error(
            f"input {number} of {self._task.name} was not published: {error!r}"
        )
