"""A consumer class of the user's own keeps its say in a node."""

from __future__ import annotations

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker

SOURCE = """
from celery import Celery
from celery.worker.consumer import Consumer
from celery_concurrent import concurrent

app = Celery(__name__)
app.conf.worker_consumer = __name__ + ":OwnConsumer"
seen = []

class OwnConsumer(Consumer):
    # Celery calls it without arguments.
    def create_task_handler(self):
        handle = super().create_task_handler()
        def note_and_handle(message):
            seen.append(message.headers["id"])
            handle(message)
        return note_and_handle

@app.task(bind=True)
@concurrent(max_inputs=4)
async def is_seen(self):
    return self.request.id in seen
"""


def test_its_handler_of_messages_is_called(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(SOURCE, broker=broker)
    celery_node(project)
    assert project.tasks.is_seen.delay().get(timeout=20) is True
