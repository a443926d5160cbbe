"""Everyone who is measured, each behind the same Protocol."""

from __future__ import annotations

from benchmarks.contenders.aio import AioCelery
from benchmarks.contenders.base import Contender, Family
from benchmarks.contenders.node import ours
from benchmarks.contenders.pools import (
    eventlet,
    gevent,
    late_prefork,
    late_threads,
    prefork,
    threads,
)
from benchmarks.contenders.publishing import apply_async, task_map
from benchmarks.contenders.raw import RawLoop
from benchmarks.contenders.streams import Taskiq

__all__ = ["CONTENDERS", "Contender", "Family"]

CONTENDERS: tuple[Contender, ...] = (
    ours,
    prefork,
    threads,
    gevent,
    eventlet,
    late_prefork,
    late_threads,
    Taskiq(),
    AioCelery(),
    RawLoop(),
    task_map,
    apply_async,
)
