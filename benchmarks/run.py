"""One contender in one cell: its brokers' fresh state, its node, its end."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as redis_client

from benchmarks.contenders import Contender
from benchmarks.model import BenchmarkError, Cell, Measured
from benchmarks.probe import Probe
from benchmarks.processes import Process
from benchmarks.results import Results
from benchmarks.services import RabbitMQ, Redis
from benchmarks.settings import NodeSettings
from benchmarks.wires import Wire

ROOT = Path(__file__).resolve().parent.parent
_POLL = 0.01
_LEAVE_PATIENCE = 35.0  # the children of prefork wait 30 s for their parent when it stops
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How following a node ended: what was counted, when it last grew, and why it ended."""

    count: int
    at: float
    reason: str

    @property
    def is_complete(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokers:
    """The servers of the whole run; RabbitMQ only when a cell needs it."""

    redis: Redis
    rabbitmq: RabbitMQ | None
    folder: Path
    stall: float

    @contextmanager
    def run(self, contender: Contender, cell: Cell, watch: Callable[[int], None]) -> Iterator[Run]:
        """A run with empty brokers, ended with everything that it started."""
        self.redis.clear()
        run = Run(self, contender, cell, watch)
        try:
            yield run
        finally:
            run.close()

    def url(self, cell: Cell) -> str:
        if cell.broker == "redis":
            return self.redis.url(Redis.BROKER)
        if self.rabbitmq is None:
            raise BenchmarkError("a RabbitMQ cell was asked for and no RabbitMQ was started")
        return self.rabbitmq.url


class Run:
    """Publishing, starting, following and ending, for the rows to put in their order."""

    def __init__(
        self,
        brokers: Brokers,
        contender: Contender,
        cell: Cell,
        watch: Callable[[int], None],
    ) -> None:
        number = next(_numbers)
        self.cell = cell
        self.queue = f"bench-{number}"
        self.broker_url = brokers.url(cell)
        self.redis: redis_client.Redis = brokers.redis.broker
        self.results = Results(brokers.redis.results)
        self._brokers, self._contender, self._watch = brokers, contender, watch
        self._probe_path = brokers.folder / f"probe-{number}"
        self.probe = Probe.create(self._probe_path, cell.inputs + 1)
        self.calls_path = brokers.folder / f"calls-{number}"
        self._log = brokers.folder / f"node-{number}.log"
        self._node: Process | None = None
        # Processor seconds that the node had used when its first input was seen.
        self.cpu_at_first = 0.0
        self.wire: Wire = contender.wire(cell, self)

    def publish(self, count: int, *, seconds: float | None = None) -> list[str]:
        """Put the inputs 0 to ``count`` into the queue; the results' keys, in order."""
        nap = self.cell.seconds if seconds is None else seconds
        each: Iterator[Sequence[Any]] = (self.args(index, nap) for index in range(count))
        return [self.wire.result_key(input_id) for input_id in self.wire.publish(each)]

    def args(self, index: int, seconds: float) -> Sequence[Any]:
        args: list[Any] = [index, seconds] if self.cell.task == "nap" else [index]
        return [*args, "x" * self.cell.payload] if self.cell.payload else args

    def start(self) -> None:
        """Start the contender's node; it takes what is already queued."""
        settings = NodeSettings(
            broker_url=self.broker_url,
            result_url=self._brokers.redis.url(Redis.RESULTS),
            queue=self.queue,
            task=self.cell.task,
            kind=self.cell.kind,
            slots=self.cell.slots,
            probe=str(self._probe_path),
            calls=str(self.calls_path) if self.cell.counts_calls else "",
        )
        launch = self._contender.launch(self.cell, sys.executable)
        env = {**os.environ, **launch.env, **settings.to_env()}
        self._node = Process(launch.argv, log=self._log, env=env, cwd=ROOT)

    @property
    def node(self) -> Process:
        assert self._node is not None
        return self._node

    def follow(
        self,
        goal: int,
        count: Callable[[], int],
        *,
        poll: float = _POLL,
        budget: float | None = None,
    ) -> Outcome:
        """Wait until ``count()`` reaches ``goal``, or there is no point in waiting on.

        That is when nothing has grown for the stall's seconds, the node is dead, or the
        budget since the first input's start is used up.
        """
        limit = self.cell.budget if budget is None else budget
        begun = grown_at = time.monotonic()
        first: float | None = None
        seen = signs = 0
        while True:
            now, current = time.monotonic(), count()
            started = self.probe.started() if signs == 0 or now - grown_at > 0.5 else signs
            if current > seen or started > signs:
                grown_at = now if current > seen else max(grown_at, now - 0.5)
                seen, signs = max(seen, current), max(started, signs)
                if first is None:
                    first, self.cpu_at_first = now, self.node.cpu()
                self._watch(seen)
            if current >= goal:
                return Outcome(count=current, at=now, reason="")
            reason = self._no_use(now, grown_at, begun if first is None else None)
            if not reason and first is not None and now - first > limit:
                reason = f"cut after {limit:g} s"
            if reason:
                return Outcome(count=seen, at=grown_at, reason=f"{reason} at {seen:,} of {goal:,}")
            time.sleep(poll)

    def _no_use(self, now: float, grown_at: float, waiting_since: float | None) -> str:
        if self.node.exit_code is not None:
            return f"died ({self.hint() or f'exit {self.node.exit_code}'})"
        patience = self._brokers.stall if waiting_since is None else self.cell.patience
        if now - grown_at > patience:
            hint = self.hint()
            return f"stalled ({hint})" if hint else "stalled"
        return ""

    def hint(self) -> str:
        """The last error that the node wrote, in short: a log's line is no place to read."""
        for line in reversed(self.node.output.splitlines()):
            text = line.strip()
            name = text.split(":", 1)[0].rsplit(".", 1)[-1]
            if name.endswith(("Error", "Exception")) and " " not in name:
                return f"{name}:{text.split(':', 1)[1]}"[:60] if ":" in text else name
        return ""

    def measured(
        self, figures: dict[str, float], keys: Sequence[str], note: str, **detail: float
    ) -> Measured:
        """The figures with what became of the inputs, whose results have the keys."""
        lost, ending = self._settle(keys)
        return Measured(
            figures=figures,
            lost=lost,
            twice=self.probe.twice(),
            note="; ".join(part for part in (note, ending) if part),
            detail=detail,
        )

    def _settle(self, keys: Sequence[str]) -> tuple[int, str]:
        """Count inputs with neither a result nor a place in the broker.

        When results are missing the node first gets a warm stop, so that it may finish
        what it has begun. One that has to be killed after that has lost what it held.
        """
        if not self.results.missing(keys):
            return 0, ""
        left = self.node.end(grace=_LEAVE_PATIENCE)
        missing = self.results.missing(keys)
        kept = {self.wire.result_key(input_id) for input_id in self.wire.remaining()}
        lost = len(missing - kept)
        return lost, "" if left else f"killed after a warm stop of {_LEAVE_PATIENCE:g} s"

    def close(self) -> None:
        """End the node, then forget its queue. Idempotent."""
        if self._node is not None:
            self._node.end()
        self.wire.close()
        self.probe.close()
        self._probe_path.unlink(missing_ok=True)
        self.calls_path.unlink(missing_ok=True)
