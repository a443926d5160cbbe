"""The app as aio-celery serves it: coroutines, RabbitMQ, results in Redis."""

from __future__ import annotations

from aio_celery import Celery

from benchmarks.apps.inputs import body, settings

app = Celery("bench")
app.conf.update(
    broker_url=settings.broker_url,
    result_backend=settings.result_url,
    task_default_queue=settings.queue,
)
app.task(name=settings.task)(body())
