"""The bodies that every contender runs, whatever registers them.

Kept apart from the apps so that no contender gets a cheaper one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.calls import CallCounter
from benchmarks.probe import Probe
from benchmarks.processes import die_with_parent
from benchmarks.settings import NodeSettings

settings = NodeSettings.from_env()
_probe = Probe(settings.probe)
if settings.calls:  # before the node's threads start
    CallCounter(settings.calls).install()

# Also in children that a contender forks or spawns: none may outlive its parent.
die_with_parent()


def noop_sync(index: int, _payload: str = "") -> None:
    _probe.begin(index)
    _probe.end(index)


def nap_sync(index: int, seconds: float) -> None:
    _probe.begin(index)
    time.sleep(seconds)
    _probe.end(index)


async def noop_async(index: int, _payload: str = "") -> None:
    _probe.begin(index)
    _probe.end(index)


async def nap_async(index: int, seconds: float) -> None:
    _probe.begin(index)
    await asyncio.sleep(seconds)
    _probe.end(index)


def body() -> Callable[..., Any]:
    """The function that this cell's task runs."""
    if settings.task == "model":
        from benchmarks.apps import encoder

        return encoder.body(settings.kind, _probe)
    bodies: dict[tuple[str, str], Callable[..., Any]] = {
        ("noop", "sync"): noop_sync,
        ("nap", "sync"): nap_sync,
        ("noop", "async"): noop_async,
        ("nap", "async"): nap_async,
    }
    return bodies[settings.task, settings.kind]
