"""What a contender's process is told through its environment.

One place writes these variables and every app reads them back, so that all contenders
run the same task on the same queue with the same number of slots.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from benchmarks.model import Kind, TaskName

_PREFIX = "BENCHMARK_"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The same for every contender of a cell, its queue name apart."""

    broker_url: str
    result_url: str
    queue: str
    task: TaskName
    kind: Kind
    slots: int
    probe: str
    calls: str = ""  # where calls are counted, if they are

    def to_env(self) -> dict[str, str]:
        return {
            f"{_PREFIX}BROKER_URL": self.broker_url,
            f"{_PREFIX}RESULT_URL": self.result_url,
            f"{_PREFIX}QUEUE": self.queue,
            f"{_PREFIX}TASK": self.task,
            f"{_PREFIX}KIND": self.kind,
            f"{_PREFIX}SLOTS": str(self.slots),
            f"{_PREFIX}PROBE": self.probe,
            f"{_PREFIX}CALLS": self.calls,
        }

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> NodeSettings:
        return cls(
            broker_url=env[f"{_PREFIX}BROKER_URL"],
            result_url=env[f"{_PREFIX}RESULT_URL"],
            queue=env[f"{_PREFIX}QUEUE"],
            task=cast(TaskName, env[f"{_PREFIX}TASK"]),
            kind="async" if env[f"{_PREFIX}KIND"] == "async" else "sync",
            slots=int(env[f"{_PREFIX}SLOTS"]),
            probe=env[f"{_PREFIX}PROBE"],
            calls=env[f"{_PREFIX}CALLS"],
        )
