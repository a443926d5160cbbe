"""Importing all that a worker imports between its command and its first input.

For a process that is to be forked into nodes: what is imported here is not imported again in
each of them. No connection is opened. The list is what Celery 5.6 and 5.7 and this package
import late; a name that has gone costs nothing but the time it saved.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import platform
from typing import Any

from celery.app import backends
from redis import utils

_WORKER = (
    "billiard.pool",
    "celery.__main__",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.events.receiver",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.heartbeat",
    "celery.worker.loops",
    "celery.worker.pidbox",
    "celery.worker.strategy",
    "celery_concurrent.cli",
    "celery_concurrent.logs",
    "celery_concurrent.pool.concurrent",
    "celery_concurrent.worker.consumer",
    "celery_concurrent.worker.steps",
    "concurrent.futures.thread",
    "encodings.idna",
    "kombu.asynchronous.semaphore",
    "kombu.matcher",
    "kombu.mixins",
    "kombu.pidbox",
    "uvloop",
)
_REDIS = (
    "celery_concurrent.redis.channel",
    "celery_concurrent.redis.fetching",
    "celery_concurrent.redis.results",
)


def import_worker(app: Any) -> None:
    """Import the worker, the app's tasks, and the clients of its broker and result backend."""
    for module in _WORKER:
        _try(module)
    platform.platform()  # for the worker's banner; it calls uname once, and keeps the answer
    app.loader.import_default_modules()
    app.finalize()
    with contextlib.suppress(Exception):  # the node meets it again, and says it
        # Makes no connection, only the object that would.
        transport = app.connection_for_read().get_transport_cls()
        if transport.driver_type == "redis":
            for module in _REDIS:
                _try(module)
            _remember_version()
    with contextlib.suppress(Exception):
        backends.by_url(app.conf.result_backend, app.loader)


def _remember_version() -> None:
    """Have redis-py look its own version up once.

    It reads its package's files for each connection (8.1), for 0.4 ms, and a node makes a dozen.
    """
    utils.get_lib_version = functools.cache(utils.get_lib_version)
    utils.get_lib_version()


def _try(module: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
