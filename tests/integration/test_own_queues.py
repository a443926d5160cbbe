"""``queue_per_task`` on a real broker: where inputs wait, and which workers take them."""

from __future__ import annotations

import pytest

from tests.services.fixtures import MakeProject, StartNode
from tests.services.project import Broker
from tests.services.waiting import wait_for
from tests.services.witness import backlog, outcome

APP = """
    from celery import Celery

    from celery_concurrent import concurrent, method, service

    app = Celery(__name__)
    app.conf.task_routes = ["celery_concurrent.routing.queue_per_task"]

    @app.task(bind=True, default_retry_delay=0.2)
    @concurrent(max_inputs=4)
    def twice(self, x, retries=0):
        if self.request.retries < retries:
            raise self.retry()
        return [2 * x, self.request.delivery_info["routing_key"]]

    @app.task
    @concurrent(max_inputs=3)
    async def thrice(x):
        return 3 * x

    @app.task(queue="named")
    @concurrent(max_inputs=2)
    def named(x):
        return x

    @app.task
    def plain(x):
        return x

    @service(app)
    @concurrent(max_inputs=5)
    class Model:
        @method
        def one(self):
            return 1

        @method
        def two(self):
            return 2
"""


def test_inputs_wait_in_the_queue_of_their_task(
    celery_project: MakeProject, broker: Broker
) -> None:
    project = celery_project(APP, broker=broker)
    tasks, name = project.tasks, project.name
    tasks.twice.delay(1)
    tasks.twice.apply_async((1,), queue="elsewhere")
    project.app.send_task(f"{name}.thrice", (1,))
    tasks.named.delay(1)
    tasks.plain.delay(1)
    tasks.Model.one.delay()
    tasks.Model.two.delay()
    expected = {
        f"{name}.twice": 1,
        f"{name}.thrice": 1,
        f"{name}.Model": 2,
        "elsewhere": 1,
        "named": 1,
        "celery": 1,
    }
    wait_for(lambda: {queue: backlog(project, queue) for queue in expected} == expected)


@pytest.mark.parametrize("pool", ["concurrent", "prefork"])
def test_a_worker_without_q_takes_from_all_of_them(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker, pool: str
) -> None:
    project = celery_project(APP, broker=redis_broker)
    tasks = project.tasks
    celery_node(project, "-c", "20", pool=pool)
    assert outcome(tasks.twice.delay(1)) == [2, f"{project.name}.twice"]
    assert outcome(tasks.thrice.delay(1)) == 3
    assert outcome(tasks.Model.two.delay()) == 2
    assert outcome(tasks.plain.delay(7)) == 7
    tasks.named.delay(1)  # as with Celery, a queue that a task names is to be consumed by name
    assert outcome(tasks.plain.delay(8)) == 8
    assert backlog(project, "named") == 1


def test_a_retry_comes_back_to_the_queue_that_it_came_from(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    own = f"{project.name}.twice"
    celery_node(project, "-Q", f"{own},elsewhere")
    assert outcome(project.tasks.twice.delay(1, retries=2)) == [2, own]
    sent = project.tasks.twice.apply_async((1, 2), queue="elsewhere")
    assert outcome(sent) == [2, "elsewhere"]


def test_q_and_x_choose_among_them(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    twice, thrice, model = (f"{project.name}.{name}" for name in ("twice", "thrice", "Model"))
    chosen = celery_node(project, "-Q", f"{twice},{model}")
    excluding = celery_node(project, "-X", f"{twice},celery")
    queues = project.app.control.inspect([chosen.name, excluding.name], timeout=5).active_queues()
    assert {queue["name"] for queue in queues[chosen.name]} == {twice, model}
    assert {queue["name"] for queue in queues[excluding.name]} == {thrice, model}
    assert "9 (concurrent)" in chosen.log()  # twice's four slots, and five of the service


def test_a_node_tells_once_of_different_limits_on_a_queue_of_its_own(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    source = """
        from celery import Celery
        from celery_concurrent import concurrent

        app = Celery(__name__)

        @app.task(queue="shared")
        @concurrent(max_inputs=4)
        def one(): ...

        @app.task(queue="shared")
        @concurrent(max_inputs=5)
        def two(): ...
    """
    project = celery_project(source, broker=redis_broker)
    sharing = celery_node(project, "-Q", "shared")
    assert sharing.log().count("tasks with different limits share the queue 'shared'") == 1
    other = celery_node(project, "-Q", "other")
    assert "different limits" not in other.log()


def test_a_node_on_other_queues_says_where_the_concurrent_tasks_are(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    told = "no concurrent task is routed to the queues of this node"
    mistyped = celery_node(project, "-Q", "nmaed,celery")
    assert f"{told} (celery, nmaed): those of the app are on named, " in mistyped.log()
    assert told not in celery_node(project, "-Q", "named,celery").log()
