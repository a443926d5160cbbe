"""One node of each pool for the whole contract: Celery's own threads, and ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.node import Node
from tests.services.project import Broker, Project, open_project
from tests.services.redis import RedisServer


@pytest.fixture(scope="session", params=["threads", "concurrent", "eventlet"])
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "eventlet":
        pytest.importorskip("eventlet")
    return name


@pytest.fixture(scope="session")
def project(
    pool: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    url = redis_server.url(redis_server.fresh_db())
    folder = tmp_path_factory.mktemp(pool)
    source = Path(__file__).with_name("tasks.py")
    broker = Broker(kind="redis", url=url, backend=url)
    with open_project(source, folder, broker, f"contract_{pool}") as made:
        yield made


@pytest.fixture(scope="session")
def node(pool: str, project: Project) -> Iterator[Node]:
    made = Node(
        project,
        *("-E", "-c", "20"),
        name=f"contract-{pool}@localhost",
        pool=pool,
        loglevel="INFO",
        env={"C_FORCE_ROOT": "1"},  # pickle is among its serializers
    )
    made.wait_until_ready()
    yield made
    made.kill()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of a task's two forms."""
    name: str = request.param
    return name
