"""One fleet's memory, and what follows from a look at it.

The loop's thread alone touches a keeper.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from celery.utils.log import get_logger

from celery_concurrent.autoscaler.actions import Actions, actions_for
from celery_concurrent.autoscaler.backoff import Backoff
from celery_concurrent.autoscaler.breakeven import BreakEven
from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.model import AnyPolicy, Decision, NodeState, Observation
from celery_concurrent.autoscaler.observe import Reading, blind_because, observation
from celery_concurrent.autoscaler.provider import NodeProcess
from celery_concurrent.autoscaler.reports import Report
from celery_concurrent.autoscaler.transit import Transit
from celery_concurrent.fleets import Fleet

logger = get_logger(__name__)

#: Decisions that are kept for people to read.
REMEMBERED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A decision that changed the number of nodes.

    Args:
        at: seconds since the epoch.
        before, after: nodes wanted.
        reason: one line.
        cause: the kind of reason, to be counted: "demand" (more nodes), "unneeded" (fewer),
            "drained" (by hand, or at the autoscaler's end), "knobs" (a changed one), "unknown"
            (while the demand is).
    """

    at: float
    before: int
    after: int
    reason: str
    cause: str


def policy_of(fleet: Fleet) -> AnyPolicy | None:
    """The policy that a fleet's knobs describe; None for one that may have no nodes."""
    knobs = fleet.knobs
    if knobs.max_nodes == 0:
        return None
    sizes = {
        "target": fleet.limits.target,
        "min_nodes": knobs.min_nodes,
        "max_nodes": knobs.max_nodes,
        "buffer_nodes": knobs.buffer_nodes,
    }
    if knobs.policy == "break-even":
        return BreakEven(**sizes, max_inputs=fleet.limits.max_inputs, price=knobs.price)
    return Hold(**sizes, window=knobs.scaledown_window)


class Keeper:
    """Keeps one fleet.

    Args:
        fleet: what was said of it.
        wall: tells the time of day, for people.
    """

    def __init__(self, fleet: Fleet, *, wall: Callable[[], float]) -> None:
        self.fleet = fleet
        self.backoff = Backoff()
        #: The pauses after looks that failed; the next one that does not ends the row.
        self.trouble = Backoff()
        self.changes: deque[Change] = deque(maxlen=REMEMBERED)
        self.decision: Decision | None = None
        self.observation: Observation | None = None
        #: Why the demand is unknown; None when it is known.
        self.blind: str | None = None
        #: What nodes lack that could not be started; None when all could.
        self.missing: str | None = None
        #: The last lines of the node that crashed last, or what a look that failed has raised.
        self.last_lines: tuple[str, ...] = ()
        #: Whether the fleet was told to have no nodes, until it is told otherwise.
        self.drained = False
        #: Whether its autoscaler ends, and its nodes with it.
        self.ending = False
        #: Changes so far, by their cause.
        self.decided: Counter[str] = Counter()
        self._wall = wall
        self._is_reconfigured = False
        self._finished_before = 0
        self._transit = Transit()
        self._policy = policy_of(fleet)
        self._state: Any = None if self._policy is None else self._policy.initial()

    def reconfigure(self, fleet: Fleet) -> None:
        """Go on with other knobs; the history of a policy of the same kind counts on."""
        before, self.fleet = self._policy, fleet
        self._is_reconfigured = True
        self._policy = policy_of(fleet)
        if self._policy is not None and type(self._policy) is not type(before):
            self._state = self._policy.initial()

    def look(self, reading: Reading) -> Actions:
        """Decide, and say what the engine is to do."""
        seen, self._transit = observation(
            reading, finished_before=self._finished_before, transit=self._transit
        )
        self._tell_blind(blind_because(reading) if seen.demand is None else None)
        self.observation = seen
        self._forgive(seen)
        decision = self._decide(seen)
        self._remember(decision)
        if reading.processes is None:
            return Actions()
        actions = actions_for(decision.desired, seen.nodes)
        if actions.start and self.backoff.wait(reading.now):
            return replace(actions, start=0)
        return actions

    def look_failed(self, error: Exception, *, now: float) -> None:
        """A look at the fleet, or what followed from it, has raised this."""
        self.trouble = self.trouble.crashed(now=now, lived=0.0)
        self.last_lines = (f"{type(error).__name__}: {error}",)

    def look_succeeded(self) -> None:
        """Nothing was raised."""
        if self.trouble.crashes:
            logger.info("fleet %s is kept again", self.fleet.queue)
            self.trouble = self.trouble.served()

    def look_again_at(self) -> float | None:
        """When something changes though nothing happens; None for never."""
        if self.trouble.crashes:
            return self.trouble.not_before
        times = [] if self.decision is None else [self.decision.look_again_at]
        if self.observation is not None and self.backoff.wait(self.observation.now):
            times.append(self.backoff.not_before)
        return min((at for at in times if at is not None), default=None)

    def ended(
        self, process: NodeProcess, *, now: float, asked: bool, report: Report | None
    ) -> None:
        """A node has ended, ``asked`` when it was told to.

        Args:
            process: as the engine saw it last.
            now: on the loop's clock.
            asked: whether the end is no crash; nor is one with exit code 0 after some time.
            report: its last word.
        """
        in_order = asked or process.exit_code == 0
        if report is not None:
            # Its last word may not have been its very last: it finishes what it runs.
            self._finished_before += report.finished + (report.running if in_order else 0)
        lived = now - process.began
        # An app whose import or start exits would else be started over and over, without a pause.
        if asked or (process.exit_code == 0 and lived >= self.backoff.steady):
            return
        self.backoff = self.backoff.crashed(now=now, lived=lived)
        self.last_lines = process.last_lines

    def _tell_blind(self, why: str | None) -> None:
        """Note why the demand is unknown; said when that begins, and when it is over."""
        if self.blind is None and why is not None:
            logger.warning("fleet %s is held: %s", self.fleet.queue, why)
        elif self.blind is not None and why is None:
            logger.info("fleet %s follows its demand again", self.fleet.queue)
        self.blind = why

    def _decide(self, seen: Observation) -> Decision:
        if self.ending:
            return Decision(desired=0, reason="the autoscaler ends")
        if self.drained:
            # What was wanted before the drain does not count as wanted until the resume.
            self._state = None if self._policy is None else self._policy.initial()
            return Decision(desired=0, reason="drained by hand")
        if self._policy is None:
            return Decision(desired=0, reason="max_nodes=0")
        decision, self._state = self._policy.decide(seen, self._state)
        if self.blind is not None:
            return replace(decision, reason=f"{self.blind}: {decision.reason}")
        return decision

    def _remember(self, decision: Decision) -> None:
        before = 0 if self.decision is None else self.decision.desired
        if decision.desired != before:
            change = Change(
                at=self._wall(),
                before=before,
                after=decision.desired,
                reason=decision.reason,
                cause=self._cause(before, decision.desired),
            )
            self.changes.append(change)
            self.decided[change.cause] += 1
            logger.info(
                "fleet %s: %d -> %d nodes: %s",
                self.fleet.queue,
                before,
                decision.desired,
                decision.reason,
            )
        self.decision = decision
        self._is_reconfigured = False

    def _cause(self, before: int, after: int) -> str:
        if self.drained or self.ending:
            return "drained"
        if self._is_reconfigured:
            return "knobs"
        if self.blind is not None:
            return "unknown"
        return "demand" if after > before else "unneeded"

    def _forgive(self, seen: Observation) -> None:
        """A node that was started since ends a row of crashes, once it has run an input.

        One from before tells nothing of whether others can be started.
        """
        runs = any(
            node.state is NodeState.READY and node.running and node.since >= self.backoff.not_before
            for node in seen.nodes
        )
        if self.backoff.crashes and runs:
            self.backoff = self.backoff.served()
