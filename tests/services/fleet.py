"""Local providers whose nodes all end with the test, whoever was killed in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.autoscaler.provider import NodeProcess, ProcessState, ProviderError
from tests.services.node import READY
from tests.services.project import Project
from tests.services.waiting import wait_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a provider wants to know of one."""

    queue: str
    gpus: float = 0


class Nodes:
    """A project's providers, one after the other, and the processes they leave."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.changes = 0
        self._providers: list[LocalProvider] = []

    def provider(self, *, ready: bool = True, **options: Any) -> LocalProvider:
        """A provider; with ``ready`` its template, if it is to have one, takes orders."""
        provider = LocalProvider(
            Command(app=self.project.name),
            folder=self.folder,
            cwd=self.project.folder,
            environ=self.environ,
            on_change=self._on_change,
            **{"drain_timeout": 20.0, **options},
        )
        self._providers.append(provider)
        template = provider._starter.template
        if ready and template is not None:
            wait_for(lambda: template.is_ready, 20.0, what="the template")
        return provider

    @property
    def environ(self) -> Mapping[str, str]:
        # By this the test finds every process that has to do with it.
        return {**self.project.environ, "TEST_STATE_FOLDER": str(self.folder)}

    def wait_until_ready(self, name: str, timeout: float = 30.0) -> None:
        wait_for(lambda: READY in self.log(name), timeout, what=lambda: self.log(name))

    def log(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return (self.folder / "logs" / f"{name.partition('@')[0]}.log").read_text()
        return ""

    def processes(self) -> dict[int, str]:
        """The node processes of this test that live, by id, whoever knows of them: their names."""
        return {
            pid: words[words.index("-n") + 1]
            for pid, words in self.leaders().items()
            if "worker" in words
        }

    def leaders(self) -> dict[int, list[str]]:
        """The words of each process of this test, template included, that has its own session.

        Others are children of nodes, some of them not yet their own program.
        """
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                ours = process.environ().get("TEST_STATE_FOLDER") == str(self.folder)
                if ours and os.getsid(process.pid) == process.pid:
                    found[process.pid] = process.cmdline()
        return found

    def kill(self) -> None:
        for provider in self._providers:
            # By what it knows first: a process has no environment while it becomes a program.
            with suppress(ProviderError):
                for known in provider.list():
                    provider.stop(known.name)
            provider.close()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TEST_STATE_FOLDER") == str(self.folder):
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)

    def _on_change(self) -> None:
        self.changes += 1


@contextmanager
def nodes_of(project: Project, folder: Path) -> Iterator[Nodes]:
    """Providers for this project; everything they have started is ended afterwards."""
    nodes = Nodes(project, folder)
    try:
        yield nodes
    finally:
        nodes.kill()


def node(provider: LocalProvider, name: str) -> NodeProcess:
    """How the provider sees this node."""
    return next(node for node in provider.list() if node.name == name)


def wait_for_end(provider: LocalProvider, name: str, timeout: float = 20.0) -> NodeProcess:
    """The node, once it has ended."""
    wait_for(
        lambda: node(provider, name).state is ProcessState.ENDED,
        timeout,
        what=lambda: f"the end of {node(provider, name)}",
    )
    return node(provider, name)
