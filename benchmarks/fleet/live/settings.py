"""What the processes of a case are told through their environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_NAME = "BENCHMARK_FLEET"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """The app of a case.

    Args:
        broker_url, result_url: where inputs and results are.
        prefix: what the names of its queues begin with.
        probe: the file in which inputs note when they start.
        queues: how many there are, a fleet each.
        min_nodes, max_nodes: of each.
        max_inputs: of each node.
    """

    broker_url: str
    result_url: str
    prefix: str
    probe: str = ""
    queues: int = 1
    min_nodes: int = 0
    max_nodes: int = 4
    max_inputs: int = 1

    def queue(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def to_env(self) -> dict[str, str]:
        return {_NAME: json.dumps(asdict(self))}

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> FleetSettings:
        return cls(**json.loads(env[_NAME]))
