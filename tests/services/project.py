"""A Celery app in a file of its own, imported by the test and by its nodes alike."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, _state

#: Whether nodes take, acknowledge and store one by one (`make unbatched`).
IS_UNBATCHED = bool(os.environ.get("CELERY_CONCURRENT_UNBATCHED"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where inputs wait and where results go: ``kind`` is "redis" or "rabbitmq"."""

    kind: str
    url: str
    backend: str

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def at(self, port: int) -> str:
        """The URL, with another port."""
        return self.url.replace(f":{self.port}/", f":{port}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with the module ``name``, whose ``app`` uses ``broker`` here and in its nodes.

    ``project.tasks.add.delay(1, 2)`` publishes an input from the test.
    """

    folder: Path
    name: str
    broker: Broker
    tasks: ModuleType

    @property
    def app(self) -> Celery:
        return self.tasks.app

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, with the broker added: Celery reads these two names."""
        return {
            **os.environ,
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.broker.backend,
            # A log is read while its process runs.
            "PYTHONUNBUFFERED": "1",
        }


@contextmanager
def open_project(source: str | Path, folder: Path, broker: Broker, name: str) -> Iterator[Project]:
    """Write ``source`` (text, or a file's path) as module ``name`` and import it.

    Names must differ among the projects of a run: a module is imported once. The app it
    makes (its variable ``app``) needs no URLs; they are set here.
    """
    text = source.read_text() if isinstance(source, Path) else textwrap.dedent(source)
    if IS_UNBATCHED:
        text += "\napp.conf.concurrent_batching = False\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    before: Any = _state._tls.current_app
    try:
        with unshared():
            tasks = importlib.import_module(name)
            tasks.app.conf.update(broker_url=broker.url, result_backend=broker.backend)
            # Now, while what ``shared_task`` left is here for it.
            tasks.app.finalize()
        yield Project(folder=folder, name=name, broker=broker, tasks=tasks)
        tasks.app.close()
    finally:
        _state._set_current_app(before)
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)


@contextmanager
def apart() -> Iterator[None]:
    """Apps made in here are gone afterwards: none is the current one, none shares its tasks."""
    before: Any = _state._tls.current_app
    try:
        with unshared():
            yield
    finally:
        _state._set_current_app(before)


@contextmanager
def unshared() -> Iterator[None]:
    """Tasks made in here belong to their own app alone.

    Celery gives each task to every app that is finalized later, so to the next test's, too.
    """
    shared: Any = _state._on_app_finalizers
    of_others = set(shared)
    try:
        yield
    finally:
        shared.intersection_update(of_others)
