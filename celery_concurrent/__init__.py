"""Input concurrency for Celery: many inputs of a task at once in one node.

Decorate a task with :func:`concurrent`, start ``celery -A app worker -P concurrent``.
"""

from __future__ import annotations

from celery_concurrent.batches.decorator import batched
from celery_concurrent.bulk.calls import Arguments
from celery_concurrent.bulk.mapping import TaskMap, task_map
from celery_concurrent.client import acall, aresult
from celery_concurrent.context import current_function_call_id, current_input_id
from celery_concurrent.control import (
    get_local_input_concurrency,
    set_local_input_concurrency,
)
from celery_concurrent.decorators import concurrent, scaling
from celery_concurrent.errors import (
    BatchError,
    ConcurrencyError,
    ConfigurationError,
    InputCancellation,
    InputOutsideError,
    MissingExtraError,
    PublishError,
    ServiceError,
)
from celery_concurrent.knobs import Knobs
from celery_concurrent.limits import Limits
from celery_concurrent.marks import limits_of
from celery_concurrent.services import enter, exit, method, service
from celery_concurrent.tracing import install as _install_tracing
from celery_concurrent.worker import install as _install

__version__ = "0.1.0"

# ``celery worker -P concurrent``, ``app.Worker(pool="concurrent")`` and the setting
# ``worker_pool`` know the pool by name as soon as an app's tasks are decorated.
_install.install()
_install_tracing()

__all__ = [
    "Arguments",
    "BatchError",
    "ConcurrencyError",
    "ConfigurationError",
    "InputCancellation",
    "InputOutsideError",
    "Knobs",
    "Limits",
    "MissingExtraError",
    "PublishError",
    "ServiceError",
    "TaskMap",
    "acall",
    "aresult",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enter",
    "exit",
    "get_local_input_concurrency",
    "limits_of",
    "method",
    "scaling",
    "service",
    "set_local_input_concurrency",
    "task_map",
]
