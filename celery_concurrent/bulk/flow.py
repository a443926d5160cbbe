"""The inputs of a map on their way: from the iterable to the broker, and out of mind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery_concurrent.bulk.account import Account
from celery_concurrent.bulk.calls import Call, Calls
from celery_concurrent.bulk.progress import Progress, shown
from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a map was asked for."""

    task: Any
    iterable: Iterable[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    chunk: int
    max_pending: int | None
    return_exceptions: bool
    progress: bool

    @contextmanager
    def started(self, account: Account, *, waits: bool) -> Iterator[Flow]:
        """The inputs begin to flow.

        Args:
            account: tells where they are.
            waits: whether results are waited for, and so bound what is published.
        """
        if waits:
            _check_has_results(self.task, self.options)
        total = len(self.iterable) if isinstance(self.iterable, Sized) else None
        with shown(self.task.name, total, is_wanted=self.progress, waits=waits) as progress:
            yield Flow(self, account, progress, waits=waits)


class Flow:
    """Inputs that are taken from the iterable, published, and handed out with their results.

    What always holds: at most ``max_pending`` inputs are published and not handed out; only
    these are remembered.

    Args:
        plan: what is to be done.
        account: where each input is.
        progress: is told how far this is.
        waits: whether results are waited for.
    """

    def __init__(self, plan: Plan, account: Account, progress: Progress, *, waits: bool) -> None:
        # Every celery command imports this module, and few of them publish.
        from celery_concurrent.bulk.publisher import Publisher

        self._plan = plan
        self._account = account
        self._progress = progress
        self._limit = plan.max_pending if waits else None
        self._calls = Calls(plan.iterable, plan.kwargs)
        # What is only published is remembered by its caller; what is waited for, by nobody.
        self._publisher = Publisher(plan.task, plan.options, account, add_to_parent=not waits)
        self._published = 0
        self._done = 0

    @property
    def chunk(self) -> int:
        """Inputs that go out together."""
        return self._plan.chunk

    @property
    def is_at_its_end(self) -> bool:
        """All is published, and handed out."""
        return self._calls.is_exhausted and not self._account.published

    @property
    def is_published(self) -> bool:
        """There is nothing more to publish."""
        return self._calls.is_exhausted

    @property
    def has_room(self) -> bool:
        """Whether to publish now. Not one for each result: what goes out together is cheaper."""
        if self._calls.is_exhausted:
            return False
        if self._limit is None:
            return True
        return self._room >= min(self._plan.chunk, max(1, self._limit // 2))

    @property
    def _room(self) -> int:
        assert self._limit is not None
        return self._limit - len(self._account.published)

    def take(self) -> list[Call]:
        """The inputs of the next chunk."""
        chunk = self._plan.chunk
        return self._calls.take(chunk if self._limit is None else min(chunk, self._room))

    def publish(self, calls: Sequence[Call]) -> list[tuple[int, Any]]:
        """Publish them; their numbers and handles.

        Raises:
            PublishError: not all were published, or the iterable raised.
        """
        self._publisher.publish(calls)
        self._published += len(calls)
        self._progress.tell(self._published, self._done)
        if (error := self._calls.error) is not None:
            raise self._account.error(
                f"the iterable raised {error!r} after {self._published} inputs, which are published"
            ) from error
        return [(number, self._account.published[number]) for number, _, _ in calls]

    def hand_out(self, number: int, error: BaseException | None, value: Any) -> Any:
        """Forget an input, and give its value.

        Raises:
            Exception: the input's own, unless exceptions are values.
        """
        del self._account.published[number]
        self._done += 1
        self._progress.tell(self._published, self._done)
        if error is None:
            return value
        if self._plan.return_exceptions and isinstance(error, Exception):
            return error
        raise error


def _check_has_results(task: Any, options: Mapping[str, Any]) -> None:
    """Rather an error than to wait for what never comes."""
    from celery.backends.base import DisabledBackend
    from celery.backends.rpc import RPCBackend

    if task.app.conf.task_always_eager:
        return
    backend = getattr(task.backend, "real", task.backend)
    if options.get("ignore_result", task.ignore_result):
        raise ConfigurationError(
            f"the results of {task.name} are ignored (ignore_result): nothing would ever arrive; "
            "call .publish() on the map"
        )
    if isinstance(backend, (DisabledBackend, RPCBackend)):
        raise ConfigurationError(
            f"results of {task.name} cannot be waited for: the result backend is "
            f"{backend.as_uri()}; set result_backend to Redis, say, or call .publish() on the map"
        )
