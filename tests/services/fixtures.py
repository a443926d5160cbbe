"""The fixtures that hand out servers, projects and nodes; a plugin that conftest.py loads.

One server of each kind serves a whole run (under xdist, one worker's part of it), started
when the first test asks for it. Tests do not mix: each gets its own Redis databases and its
own RabbitMQ virtual host. A test that stops, restarts or kills a server takes a private one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.services.fleets import end_nodes
from tests.services.node import Node
from tests.services.project import Broker, Project, apart, open_project
from tests.services.rabbitmq import RabbitMQServer
from tests.services.redis import RedisServer

_numbers = itertools.count(1)
_NODES = pytest.StashKey[list[Node]]()
_REPORTED_LINES = 60


class MakeProject(Protocol):
    """Make an app from its source, or from a file; see ``project.open_project``."""

    def __call__(self, source: str | Path, *, broker: Broker) -> Project: ...


MakeFleetProject = Callable[[str], Project]
"""Make a project of its source."""


class StartNode(Protocol):
    """Start a node and, unless ``ready`` is False, return when it consumes."""

    def __call__(
        self,
        project: Project,
        *options: str,
        pool: str = "concurrent",
        name: str | None = None,
        loglevel: str = "INFO",
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        timeout: float = 30.0,
    ) -> Node: ...


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    with apart():
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The run's Redis server. Ask for ``redis_url`` or ``redis_broker`` to share it politely."""
    yield from _running(RedisServer(tmp_path_factory.mktemp("redis")))


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """The run's RabbitMQ server. Ask for ``rabbitmq_url`` or ``rabbitmq_broker``."""
    yield from _running_rabbitmq(tmp_path_factory)


@pytest.fixture
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server for this test alone that loses nothing when it is stopped or killed."""
    yield from _running(RedisServer(tmp_path_factory.mktemp("redis"), appendonly=True))


@pytest.fixture
def private_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """A RabbitMQ server for this test alone; five seconds, so share one where you can."""
    yield from _running_rabbitmq(tmp_path_factory)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An empty Redis database for this test alone."""
    database = redis_server.fresh_db()
    yield redis_server.url(database)
    with redis_server.client(database) as client:
        client.flushdb()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer) -> str:
    """A virtual host for this test alone."""
    return rabbitmq_server.url(rabbitmq_server.fresh_vhost())


@pytest.fixture
def redis_broker(redis_url: str) -> Broker:
    """Redis for inputs and results."""
    return Broker(kind="redis", url=redis_url, backend=redis_url)


@pytest.fixture
def rabbitmq_broker(rabbitmq_url: str, redis_url: str) -> Broker:
    """RabbitMQ for inputs, Redis for results."""
    return Broker(kind="rabbitmq", url=rabbitmq_url, backend=redis_url)


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn: the test runs once per kind."""
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def celery_project(tmp_path: Path) -> Iterator[MakeProject]:
    """Makes Celery apps that the test and its nodes share; see :class:`MakeProject`."""
    yield from _project_maker(tmp_path)


@pytest.fixture
def fleet_project(celery_project: MakeProject, redis_broker: Broker) -> Iterator[MakeFleetProject]:
    """Makes a project on Redis; what is left of its fleets is ended with the test."""
    made: list[Project] = []

    def make(source: str) -> Project:
        made.append(celery_project(source, broker=redis_broker))
        return made[-1]

    yield make
    for project in made:
        end_nodes(project)


@pytest.fixture
def celery_node(request: pytest.FixtureRequest) -> Iterator[StartNode]:
    """Starts nodes that end with the test; see :class:`StartNode` and :class:`Node`."""
    yield from _node_starter(request.node)


@pytest.fixture(scope="module")
def module_redis_broker(redis_server: RedisServer) -> Broker:
    """Redis for inputs and results, one database for all tests of a module."""
    url = redis_server.url(redis_server.fresh_db())
    return Broker(kind="redis", url=url, backend=url)


@pytest.fixture(scope="module")
def module_rabbitmq_broker(rabbitmq_server: RabbitMQServer, redis_server: RedisServer) -> Broker:
    """RabbitMQ for inputs, Redis for results, one of each for all tests of a module."""
    url = rabbitmq_server.url(rabbitmq_server.fresh_vhost())
    return Broker(kind="rabbitmq", url=url, backend=redis_server.url(redis_server.fresh_db()))


@pytest.fixture(scope="module")
def module_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeProject]:
    """As ``celery_project``, for all tests of a module."""
    yield from _project_maker(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def module_node(request: pytest.FixtureRequest) -> Iterator[StartNode]:
    """As ``celery_node``, for all tests of a module: for those that leave a node as it was."""
    yield from _node_starter(request.node)


def _project_maker(folder: Path) -> Iterator[MakeProject]:
    with ExitStack() as stack:

        def make(source: str | Path, *, broker: Broker) -> Project:
            # Task names hold the module's, so it must be the same in the node's process.
            name = f"tasks{next(_numbers)}"
            return stack.enter_context(open_project(source, folder, broker, name))

        yield make


def _node_starter(owner: pytest.Item | pytest.Collector) -> Iterator[StartNode]:
    nodes = owner.stash.setdefault(_NODES, [])

    def start(
        project: Project,
        *options: str,
        pool: str = "concurrent",
        name: str | None = None,
        loglevel: str = "INFO",
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        timeout: float = 30.0,
    ) -> Node:
        node = Node(
            project,
            *options,
            name=name if name is not None else f"node{next(_numbers)}@localhost",
            pool=pool,
            loglevel=loglevel,
            env=env,
        )
        nodes.append(node)
        if ready:
            node.wait_until_ready(timeout)
        return node

    yield start
    for node in nodes:
        node.kill()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its nodes logged last."""
    report = yield
    if report.failed and call.when == "call":
        for owner in item.listchain():  # the test itself, its module
            for node in owner.stash.get(_NODES, []):
                report.sections.append((f"log of {node.name}", node.log_tail(_REPORTED_LINES)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """An app that a test's module imports while it is collected stays out of all tests, too."""
    with apart():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test by the services it uses, so that ``-m "not rabbitmq"`` leaves them out."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & {"redis_server", "private_redis"} and "broker" not in names:
            item.add_marker(pytest.mark.redis)
        if names & {"rabbitmq_server", "private_rabbitmq"} and "broker" not in names:
            item.add_marker(pytest.mark.rabbitmq)


def _running(server: RedisServer) -> Iterator[RedisServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _running_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.end()
