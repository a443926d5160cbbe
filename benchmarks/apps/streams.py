"""The app as taskiq serves it: Redis streams, results as JSON as in Celery."""

from __future__ import annotations

from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.apps.inputs import body, settings

# From the stream's beginning: the inputs are queued before the node starts.
broker = RedisStreamBroker(
    settings.broker_url, queue_name=settings.queue, consumer_id="0"
).with_result_backend(
    RedisAsyncResultBackend(settings.result_url, serializer=JSONSerializer(), result_ex_time=86_400)
)
broker.register_task(body(), task_name=settings.task)
