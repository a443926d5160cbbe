"""A node while the local provider looks after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from celery_concurrent.autoscaler.local.processes import Handle
from celery_concurrent.autoscaler.provider import NodeProcess, ProcessState


@dataclass(slots=True, kw_only=True, eq=False)
class Tended:
    """What the provider holds of a node; changed under the provider's lock alone.

    Args:
        handle: None while the process has not said who it is, and when it is gone.
        forked: whether the template is its parent, and tells its exit code.
        deadline: when it is ended if it still drains, on the provider's clock.
        code_until: it has ended, and until then the template may say how.
    """

    name: str
    queue: str
    env: Mapping[str, str]
    began: float
    since: float = field(init=False)
    state: ProcessState = ProcessState.RUNNING
    handle: Handle | None = None
    pid: int | None = None
    forked: bool = False
    adopted: bool = False
    drained: bool = False
    deadline: float | None = None
    code_until: float | None = None
    exit_code: int | None = None
    last_lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.since = self.began

    def enter(self, state: ProcessState, now: float) -> None:
        self.state, self.since = state, now
        self.drained = self.drained or state is ProcessState.DRAINING

    @property
    def lives(self) -> bool:
        return self.state is not ProcessState.ENDED

    def told(self) -> NodeProcess:
        """As others see it."""
        return NodeProcess(
            name=self.name,
            queue=self.queue,
            state=self.state,
            since=self.since,
            began=self.began,
            env=dict(self.env),
            pid=self.pid,
            exit_code=self.exit_code,
            adopted=self.adopted,
            drained=self.drained,
            last_lines=self.last_lines,
        )
