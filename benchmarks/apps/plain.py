"""The app as Celery's own pools serve it: plain tasks, Celery's defaults."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.apps.inputs import body, settings
from benchmarks.processes import die_with_parent

app = Celery("bench", broker=settings.broker_url, backend=settings.result_url)
app.conf.task_default_queue = settings.queue
app.conf.broker_connection_retry_on_startup = True
# Loading a model takes longer than the four seconds that a child has by default.
app.conf.worker_proc_alive_timeout = 60
app.task(name=settings.task)(body())


@worker_process_init.connect
def _bind_child(**_kwargs: Any) -> None:
    die_with_parent()
