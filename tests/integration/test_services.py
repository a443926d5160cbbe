"""The tests' own servers and processes keep their promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import kombu
import psutil
import pytest
import redis

from celery_concurrent.embedded import end
from tests.services.fixtures import MakeProject, StartNode
from tests.services.needs import STRICT, missing
from tests.services.process import Process, free_port
from tests.services.project import Broker
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer
from tests.services.waiting import wait_for

ROOT = Path(__file__).parents[2]
APP = """
    import os

    from celery import Celery

    app = Celery(__name__)

    @app.task
    def pid():
        return os.getpid()
"""


def gone(pid: int) -> bool:
    """Whether the process ended; a zombie has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_wait_for_returns_what_the_condition_returned() -> None:
    answers = iter([0, None, "ready"])
    assert wait_for(lambda: next(answers)) == "ready"


def test_wait_for_tells_what_did_not_come_true_and_what_it_was() -> None:
    with pytest.raises(AssertionError, match=r"an answer did not come true within 0.05 s; .* 0 "):
        wait_for(lambda: 0, 0.05, what="an answer")


def test_wait_for_looks_once_even_without_time() -> None:
    assert wait_for(lambda: True, 0.0)


def test_a_missing_service_skips_its_tests() -> None:
    with pytest.raises(pytest.skip.Exception, match="Redis is missing: install it"):
        missing("Redis", "install it", environ={})


def test_a_missing_service_fails_its_tests_where_all_are_required() -> None:
    with pytest.raises(pytest.fail.Exception, match="Redis is missing: install it"):
        missing("Redis", "install it", environ={STRICT: "1"})


def test_a_process_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    process = Process(
        [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], log_path=tmp_path / "log"
    )
    with pytest.raises(AssertionError, match=r"(?s)ended with 3 before it logged 'up'.*no luck"):
        process.wait_for_log("up")


def test_killing_a_process_ends_its_children(tmp_path: Path) -> None:
    parent = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    process = Process(
        [sys.executable, "-c", f"import time; {parent.replace('input()', 'time.sleep(60)')}"],
        log_path=tmp_path / "log",
    )
    process.wait_for_log("\n")
    child = int(process.log())
    process.kill()
    process.kill()
    wait_for(lambda: gone(child), what="the end of the child")


def test_a_redis_server_keeps_its_port_and_what_it_was_told_over_a_kill(
    private_redis: RedisServer,
) -> None:
    port, pid = private_redis.port, private_redis.pid
    with private_redis.client() as client:
        client.set("told", "kept")
    private_redis.kill()
    assert not private_redis.running
    private_redis.start()
    private_redis.restart()
    assert private_redis.pid != pid
    assert private_redis.port == port
    with private_redis.client() as client:
        assert client.get("told") == b"kept"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_redis_database_of_its_own(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("mine", turn)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_rabbitmq_vhost_of_its_own(rabbitmq_url: str, turn: int) -> None:
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue("mine")
        assert queue.qsize() == 0
        queue.put(turn)
        wait_for(lambda: queue.qsize() == 1)


@pytest.mark.slow
def test_rabbitmq_keeps_durable_queues_over_a_restart_and_a_kill(
    private_rabbitmq: RabbitMQServer,
) -> None:
    url = private_rabbitmq.url(private_rabbitmq.fresh_vhost())
    quorum = kombu.Queue("quorum", queue_arguments={"x-queue-type": "quorum"})
    queues = [kombu.Queue("classic", durable=True), quorum]
    # Confirmed, for the broker may else be killed, or asked, before it has what was sent.
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        for queue in queues:
            queue.bind(connection.default_channel).declare()
            producer = connection.Producer()
            producer.publish("kept", routing_key=queue.name, confirm_timeout=10, delivery_mode=2)
    assert _backlogs(url, queues) == [1, 1]
    private_rabbitmq.restart()
    assert _backlogs(url, queues) == [1, 1]
    private_rabbitmq.kill()
    private_rabbitmq.start()
    assert _backlogs(url, queues) == [1, 1]


def _backlogs(url: str, queues: list[kombu.Queue]) -> list[int]:
    """What is ready in each; asked for passively, for ``rabbitmqctl`` tells it seconds later."""
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        return [queue.bind(channel).queue_declare(passive=True)[1] for queue in queues]


def test_rabbitmq_can_drop_every_connection(rabbitmq_server: RabbitMQServer) -> None:
    with kombu.Connection(rabbitmq_server.url()) as connection:
        connection.connect()
        rabbitmq_server.ctl("close_all_connections", "test")
        with pytest.raises(connection.connection_errors):
            connection.drain_events(timeout=5)


def test_servers_and_nodes_end_when_the_test_run_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the test run no time to clean up; the kernel does it."""
    inner = tmp_path / "test_inner.py"
    inner.write_text(
        textwrap.dedent(
            """
            import os, pathlib, time

            def test_inner(redis_server, rabbitmq_server, tmp_path):
                from tests.services.process import Process
                node = Process(["/bin/sleep", "60"], log_path=tmp_path / "log")
                pids = [redis_server.pid, rabbitmq_server.pid, rabbitmq_server._epmd.pid, node.pid]
                told = pathlib.Path(os.environ["TOLD"])
                told.with_suffix(".new").write_text(" ".join(map(str, pids)))
                told.with_suffix(".new").rename(told)
                time.sleep(60)
            """
        )
    )
    told = tmp_path / "pids"
    plugin = [*("-p", "tests.services.fixtures"), *("-p", "no:cacheprovider")]
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugin, *("-c", ROOT / "pyproject.toml"), inner],
        cwd=ROOT,
        env={**os.environ, "TOLD": str(told)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(lambda: told.exists() or run.poll() is not None, 60)
        if not told.exists():
            pytest.skip("a service is missing")
        pids = [int(pid) for pid in told.read_text().split()]
        assert not any(gone(pid) for pid in pids)
        run.send_signal(signal.SIGKILL)
        wait_for(lambda: all(gone(pid) for pid in pids), what="the end of all services")
    finally:
        end(run, patience=0)


def test_two_servers_run_beside_each_other(
    redis_server: RedisServer, private_redis: RedisServer
) -> None:
    assert redis_server.port != private_redis.port
    assert free_port() not in {redis_server.port, private_redis.port}


def test_a_stock_node_runs_an_input_and_stops(
    celery_project: MakeProject, celery_node: StartNode, broker: Broker
) -> None:
    project = celery_project(APP, broker=broker)
    node = celery_node(project, pool="solo")
    assert project.tasks.pid.delay().get(timeout=10) == node.pid
    assert node.stop() == 0
    assert node.name in node.log()


def test_a_node_that_cannot_start_fails_with_its_log(
    celery_project: MakeProject, celery_node: StartNode, redis_broker: Broker
) -> None:
    project = celery_project(APP, broker=redis_broker)
    with pytest.raises(AssertionError, match=r"(?s)ended with 2 before.*No such option"):
        celery_node(project, "--no-such-option", pool="solo")
