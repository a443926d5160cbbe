"""Every code block of the documentation runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.services.page_run import PageRun
from tests.services.pages import blocks
from tests.services.redis import RedisServer

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.exists() and "_build" not in page.parts
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_of_a_page_runs(
    page: Path, redis_server: RedisServer, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # A page's database 0 is one and the same from its first block to its last.
    databases = cache(lambda shown: redis_server.url(redis_server.fresh_db()))
    run = PageRun(
        tmp_path,
        root=ROOT,
        redis=databases,
        rabbitmq=lambda: str(request.getfixturevalue("rabbitmq_url")),
    )
    try:
        for block in blocks(page):
            run.run(block)
        run.end()
    finally:
        run.kill()
