"""The app as our node serves it: the same task below ``@concurrent``."""

from __future__ import annotations

from celery import Celery

from benchmarks.apps.inputs import body, settings
from celery_concurrent import concurrent

app = Celery("bench", broker=settings.broker_url, backend=settings.result_url)
app.conf.task_default_queue = settings.queue
app.conf.broker_connection_retry_on_startup = True
app.task(name=settings.task, queue=settings.queue)(concurrent(max_inputs=settings.slots)(body()))
