"""The Celery side of the replay: publishes inputs, reads results."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from celery import states
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.demo import app as demo
from celery_concurrent.demo.errors import BrokerLostError
from celery_concurrent.demo.replay import Result

# Celery prefers these to any app's own settings, so a user's must not come before the demo's.
_ADDRESSES = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)


def use_broker(url: str) -> None:
    """Have the demo's app use this broker and result store, in this process and its children.

    By the environment: an argv is for all to read.
    """
    os.environ.update(dict.fromkeys(_ADDRESSES, url))


class CeleryClient:
    """The demo app as its callers use it."""

    def __init__(self) -> None:
        # The broker is on this machine and ours alone: it answers, or it is dead.
        demo.app.conf.update(
            task_publish_retry=False,
            result_backend_transport_options={"retry_policy": {"max_retries": 0}},
        )
        self._backend = demo.app.backend

    def publish(self, arrival: Arrival) -> str:
        with loss_told():
            return str(demo.Embed.vectors.apply_async((arrival.seconds,)).id)

    def results(self, input_ids: Collection[str]) -> dict[str, Result]:
        with loss_told():
            # One MGET for all that are out, and no waiting.
            found = self._backend.get_many(set(input_ids), interval=0, max_iterations=1)
            return {input_id: _result(meta["status"], meta["result"]) for input_id, meta in found}


@contextmanager
def loss_told() -> Iterator[None]:
    """Tell a lost broker by :class:`BrokerLostError`."""
    try:
        yield
    # RuntimeError is what Celery's result store raises when it cannot reconnect.
    except (OperationalError, RedisError, OSError, RuntimeError) as error:
        raise BrokerLostError(f"the broker does not answer any more: {error}") from error


def _result(state: str, value: object) -> Result:
    if state == states.SUCCESS and isinstance(value, list):
        node, started, ended = value
        return Result(node=node, started=started, ended=ended)
    return Result(error=f"{state}: {value!r}")
