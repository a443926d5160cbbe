"""``celery -A app concurrent`` as Celery's own command line runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

SOURCE = """
from celery import Celery
from celery_concurrent import concurrent, method, service

app = Celery("shop", broker="memory://", set_as_current=False)

@app.task(queue="fetch", name="shop.fetch")
@concurrent(max_inputs=200, target_inputs=150)
async def fetch(url): ...

@app.task(name="shop.thumb")
@concurrent(max_inputs=10)
def thumb(path): ...

@app.task(name="shop.plain")
def plain(): ...

@service(app, queue="embed", name="shop.embed")
@concurrent(max_inputs=32)
class Embed:
    @method
    def vectors(self, texts): ...
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Any) -> Iterator[str]:
    (tmp_path / "unit_shop.py").write_text(SOURCE)
    (tmp_path / "unit_bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield "unit_shop"
    for name in ("unit_shop", "unit_bare"):
        sys.modules.pop(name, None)


def run(*words: str) -> str:
    done = CliRunner().invoke(celery, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_table_shows_each_concurrent_task(shop: str) -> None:
    table = [line.split("  ") for line in run("-A", shop, "concurrent").splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in table]
    assert cells == [
        ["task", "queue", "runs on", "max_inputs", "target_inputs", "service"],
        ["shop.thumb", "celery", "threads", "10", "10", "-"],
        ["shop.embed.vectors", "embed", "threads", "32", "32", "shop.embed"],
        ["shop.fetch", "fetch", "event loop", "200", "150", "-"],
    ]


def test_json_has_one_object_for_each(shop: str) -> None:
    rows = json.loads(run("-A", shop, "concurrent", "--json"))
    assert [row["task"] for row in rows] == ["shop.thumb", "shop.embed.vectors", "shop.fetch"]
    assert rows[2] == {
        "task": "shop.fetch",
        "queue": "fetch",
        "runs on": "event loop",
        "max_inputs": 200,
        "target_inputs": 150,
        "service": None,
    }


def test_an_app_without_concurrent_tasks_is_told_so(shop: str) -> None:
    assert "no task has @concurrent" in run("-A", "unit_bare", "concurrent")
    assert json.loads(run("-A", "unit_bare", "concurrent", "--json")) == []


def test_without_an_app_it_asks_for_one(app: Any) -> None:
    app.set_current()  # as Celery's own, which in this process may have other tests' tasks
    assert "no app is named, so there is no task: celery -A module" in run("concurrent")


def test_the_worker_command_accepts_the_pools_name(shop: str) -> None:
    assert "concurrent" in run("worker", "--help")
