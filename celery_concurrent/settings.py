"""The settings of a node, read from the Celery app and checked at its start."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from celery_concurrent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Each field is an app setting with ``concurrent_`` before its name.

    Args:
        io_threads: threads that store results and publish for async inputs.
        eta_limit: ETA and countdown inputs that each group of queues holds beside its slots;
            ``worker_eta_task_limit`` goes before it.
        reserve: inputs of each function or service that the node fetches beside those in its slots,
            to start them without a round trip when a slot comes back. None leaves it to the node:
            a few while inputs are short (:mod:`.pool.reserve`).
        stuck_timeout: seconds that an input may outlive its hard time limit or its
            cancellation before the node drains and exits.
        batching: whether inputs are taken, acknowledged and their results stored many at once.
            False is Celery's and kombu's own way: one by one. On Redis it loses an input when the
            node dies between taking it and registering it, and gives back what a dead node had
            taken after the visibility timeout.
        log_lines: the last log lines of each input that the node keeps to be shown, 0 for none.
        redis_lease: seconds without a sign of life of a node after which others put back what it
            has taken from Redis, with batching.

    Raises:
        ConfigurationError: a value of another type or out of range, with the setting's name.
    """

    io_threads: int = 4
    eta_limit: int = 1000
    reserve: int | None = None
    stuck_timeout: float = 60.0
    batching: bool = True
    log_lines: int = 200
    redis_lease: float = 10.0

    def __post_init__(self) -> None:
        self._require_number("io_threads", int, least=1)
        self._require_number("eta_limit", int, least=0)
        if self.reserve is not None:
            self._require_number("reserve", int, least=0)
        self._require_number("stuck_timeout", float, least=0)
        self._require_number("log_lines", int, least=0)
        self._require_number("redis_lease", float, least=1)
        if not isinstance(self.batching, bool):
            raise ConfigurationError(f"concurrent_batching={self.batching!r} must be True or False")

    @classmethod
    def of(cls, app: Any) -> NodeSettings:
        """The settings of a Celery app."""
        given = {
            field.name: app.conf[f"concurrent_{field.name}"]
            for field in fields(cls)
            if f"concurrent_{field.name}" in app.conf
        }
        celerys = app.conf.worker_eta_task_limit
        if celerys is not None:
            _require_number("worker_eta_task_limit", celerys, int, least=0)
            given["eta_limit"] = celerys
        return cls(**given)

    def _require_number(self, name: str, kind: type, *, least: int) -> None:
        _require_number(f"concurrent_{name}", getattr(self, name), kind, least=least)


def _require_number(setting: str, value: Any, kind: type, *, least: int) -> None:
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed) or value < least:
        what = "a number of seconds" if kind is float else "an int"
        raise ConfigurationError(f"{setting}={value!r} must be {what}, {least} or more")
