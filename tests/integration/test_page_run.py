"""The blocks of a page are run as a reader would type them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.page_run import PageRun
from tests.services.pages import Block

ROOT = Path(__file__).parents[2]
APP = """
    # tasks.py
    from celery import Celery

    app = Celery("tasks", broker="redis://localhost:6379/0", backend="redis://localhost/1")

    @app.task
    def add(x, y):
        return x + y
"""

RunBlock = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, redis_url: str) -> Iterator[RunBlock]:
    page = PageRun(tmp_path, root=ROOT, redis=lambda db: redis_url, rabbitmq=lambda: "amqp://own/")

    def block(language: str, text: str, no_run: str | None = None) -> None:
        lines = textwrap.dedent(text).lstrip("\n")
        page.run(Block(language=language, text=lines, line=1, no_run=no_run))

    yield block
    page.kill()


def test_a_page_writes_an_app_starts_its_node_and_sends_inputs(run: RunBlock) -> None:
    run("python", APP)
    run("bash", "celery -A tasks worker \\\n    -P solo")
    run("python", "from tasks import add\nassert add.delay(1, 2).get(timeout=10) == 3\n")
    run("pycon", ">>> from tasks import add\n>>> add.delay(2, 2).get(timeout=10)\n4\n")
    run("console", '$ python -c "import tasks; print(1)"\n1\n')


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "raise SystemExit('no')"),
        ("pycon", ">>> 1 + 1\n3\n"),
        ("bash", "false\ntrue"),
        ("console", "$ false\n$ true"),
        ("bash", "celery -A nothing worker"),
    ],
)
def test_a_block_that_fails_fails_the_page(
    tmp_path: Path, redis_url: str, language: str, text: str
) -> None:
    page = PageRun(tmp_path, root=ROOT, redis=lambda db: redis_url, rabbitmq=lambda: "")
    with pytest.raises(AssertionError):
        page.run(Block(language=language, text=text, line=1))
    page.kill()


def test_a_server_that_ends_early_fails_the_page(tmp_path: Path, redis_url: str) -> None:
    page = PageRun(tmp_path, root=ROOT, redis=lambda db: redis_url, rabbitmq=lambda: "")
    page.run(Block(language="python", text=textwrap.dedent(APP).lstrip(), line=1))
    page.run(Block(language="bash", text="celery -A tasks worker -P solo", line=1))
    page.run(Block(language="bash", text="celery -A tasks control shutdown || true", line=1))
    page._servers[0].wait()
    with pytest.raises(AssertionError, match="did not stay"):
        page.end()


def test_a_block_that_is_not_run_is_still_checked(run: RunBlock) -> None:
    run("bash", "pip install celery-concurrent", no_run="not in this index")
    run("bash", "make demo", no_run="takes minutes")
    with pytest.raises(AssertionError, match="No rule to make target"):
        run("bash", "make coffee", no_run="takes minutes")
    with pytest.raises(SyntaxError):
        run("python", "def", no_run="a fragment")


def test_urls_of_brokers_on_localhost_become_the_tests_own(
    run: RunBlock, tmp_path: Path, redis_url: str
) -> None:
    run("ini", "; a.ini\nredis://localhost:6379/3 amqp://guest:guest@localhost:5672//\n")
    assert (tmp_path / "a.ini").read_text() == f"; a.ini\n{redis_url} amqp://own/\n"
