"""A real Flower: ``celery -A MODULE flower`` in a process of its own, on a port that was free."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.services.process import Process
from tests.services.project import Project
from tests.services.waiting import wait_for

if TYPE_CHECKING:
    import httpx

_numbers = count(1)
_BANNER = re.compile(r"Visit me at http://127\.0\.0\.1:(\d+)")

#: A login for ``--basic-auth``, as Flower and as httpx want it.
LOGIN = "ann:secret"
AUTH = ("ann", "secret")


def _has_a_ready_node(body: dict[str, Any]) -> bool:
    return any(node["state"] == "ready" for node in body["nodes"])


class Flower(Process):
    """A running Flower; it takes a port that is free.

    Args:
        project: whose app it watches.
        options: of ``celery flower``, such as ``--url-prefix=ops``.
        env: added to the project's environment.
    """

    def __init__(
        self, project: Project, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.prefix = next(
            (
                "/" + option.partition("=")[2].strip("/")
                for option in options
                if option.startswith(("--url-prefix=", "--url_prefix="))
            ),
            "",
        )
        super().__init__(
            [
                *(sys.executable, "-m", "celery", "-A", project.name),
                *("flower", "--port=0", "--address=127.0.0.1", *options),
            ],
            log_path=project.folder / f"flower-{next(_numbers)}.log",
            cwd=project.folder,
            env={**project.environ, **(env or {})},
        )

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:PORT``, once it is ready."""
        found = _BANNER.search(self.log())
        assert found is not None, self.log_tail()
        return f"http://127.0.0.1:{found[1]}"

    @property
    def url(self) -> str:
        """Where its pages are, its prefix included, without a slash at the end."""
        return self.origin + self.prefix

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Return when it serves."""
        self.wait_for_log("Visit me at ", timeout)
        wait_for(self._serves, timeout, what=self.log_tail)

    def client(self, **options: Any) -> httpx.Client:
        """A client whose paths begin at :attr:`url`."""
        # Loaded with every test run, and few of them have it.
        import httpx

        return httpx.Client(base_url=self.url, timeout=20.0, trust_env=False, **options)

    def wait_for_fleet(
        self,
        queue: str,
        until: Callable[[dict[str, Any]], bool] = _has_a_ready_node,
        *,
        timeout: float = 30.0,
        **options: Any,
    ) -> dict[str, Any]:
        """The page's data of a fleet, once Flower has heard of it and ``until`` is true of that."""
        with self.client(**options) as client:

            def look() -> dict[str, Any] | None:
                answer = client.get(f"/fleet/data/fleet/{queue}")
                if answer.status_code == 404:
                    return None
                answer.raise_for_status()
                body: dict[str, Any] = answer.json()
                return body if until(body) else None

            found = wait_for(look, timeout, what=self.log_tail)
            assert found is not None
            return found

    def _serves(self) -> bool:
        import httpx

        try:
            with self.client() as client:
                return client.get("/healthcheck").status_code == 200
        except httpx.TransportError:
            return False


class StartFlower(Protocol):
    """Start a Flower and return when it serves; it ends with the test."""

    def __call__(
        self, project: Project, *options: str, env: Mapping[str, str] | None = None
    ) -> Flower: ...


@contextmanager
def flowers() -> Iterator[StartFlower]:
    """Starts Flowers, which end with the context."""
    started: list[Flower] = []

    def start(project: Project, *options: str, env: Mapping[str, str] | None = None) -> Flower:
        flower = Flower(project, *options, env=env)
        started.append(flower)
        flower.wait_until_ready()
        return flower

    try:
        yield start
    finally:
        for flower in started:
            flower.kill()


@pytest.fixture
def start_flower() -> Iterator[StartFlower]:
    """Starts Flowers that end with the test."""
    with flowers() as start:
        yield start


@pytest.fixture(scope="module")
def module_flower() -> Iterator[StartFlower]:
    """As ``start_flower``, for all tests of a module."""
    with flowers() as start:
        yield start
