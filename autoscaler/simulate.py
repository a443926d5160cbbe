"""Replay arrivals through a policy: discrete events in simulated time, nothing else.

What is modelled, and how:

- An input waits in one queue until a node asks. A node that takes inputs asks again for each
  free slot, and who has asked for the longest is served first, as brokers do it: so inputs
  spread over the nodes.
- A node takes inputs ``cold_start`` seconds after it was ordered, and costs from its order on.
- An input that starts in a node above its target runs longer: by ``slowdown`` times the part
  by which the node is above target at that instant (1.25 times the target: ``slowdown`` / 4).
- A draining node finishes its inputs and leaves; an empty one leaves at once.
- The policy is asked after every event (arrival, end, node ready) and when it wants to look
  again; with ``every``, at multiples of it instead.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

from celery_concurrent.autoscaler.actions import actions_for
from celery_concurrent.autoscaler.model import AnyPolicy, Node, NodeState, Observation
from celery_concurrent.autoscaler.replay import Arrival, Engine, Replay, Step

# A policy that orders nothing would leave the replay without an end.
_PATIENCE = 86_400.0


def simulate(
    policy: AnyPolicy,
    arrivals: Sequence[Arrival],
    engine: Engine,
    *,
    every: float | None = None,
    until: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Replay ``arrivals``, in order of ``at``, from an empty fleet at 0.

    Args:
        every: seconds between two looks of the policy; None for a look at every event.
        until: how long the replay lasts; None for until the last input has ended.
        progress: hears after each event how many inputs have ended.
    """
    return _Simulation(policy, arrivals, engine, every, progress).run(until)


class _Simulated:
    """A node while the replay runs; ``seen`` is the policy's view of it, made when it changed."""

    __slots__ = ("asking", "name", "ordered", "running", "seen", "since", "state")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.ordered = now
        self.asking = False
        self.running = 0
        self.become(NodeState.STARTING, now)

    def become(self, state: NodeState, now: float) -> None:
        self.state = state
        self.since = now
        self.look()

    def look(self) -> None:
        self.seen = Node(name=self.name, state=self.state, since=self.since, running=self.running)


class _Simulation:
    """The state of one replay. A turn is: what happens, who takes what, what is decided."""

    def __init__(
        self,
        policy: AnyPolicy,
        arrivals: Sequence[Arrival],
        engine: Engine,
        every: float | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._policy = policy
        self._arrivals = arrivals
        self._engine = engine
        self._every = every
        self._progress = progress
        self._nodes: dict[str, _Simulated] = {}
        self._asking: deque[_Simulated] = deque()
        self._backlog: deque[int] = deque()
        # (when, tie-break, node, whether an input ends there; else it becomes ready)
        self._events: list[tuple[float, int, _Simulated, bool]] = []
        self._sequence = 0
        self._arrived = self._finished = self._running = 0
        self._waits = [math.inf] * len(arrivals)
        self._state = policy.initial()
        self._look: float | None = 0.0
        self._desired = 0
        self._decisions = self._starts = self._cancels = self._drains = 0
        self._spent = 0.0
        self._steps: list[Step] = []

    def run(self, until: float | None) -> Replay:
        last = self._arrivals[-1].at if self._arrivals else 0.0
        limit = last + _PATIENCE if until is None else until
        now = 0.0
        while (at := self._next()) is not None and at <= limit:
            now = at
            self._happen(now)
            self._hand_out(now)
            if self._every is None or (self._look is not None and now >= self._look):
                self._decide(now)
            if self._progress is not None:
                self._progress(self._finished)
            if until is None and self._finished == len(self._arrivals):
                break
        ended = now if until is None else until
        spent = self._spent + sum(ended - node.ordered for node in self._nodes.values())
        return Replay(
            waits=tuple(self._waits),
            steps=tuple(self._steps),
            node_seconds=spent,
            ended=ended,
            decisions=self._decisions,
            starts=self._starts,
            cancels=self._cancels,
            drains=self._drains,
        )

    def _next(self) -> float | None:
        """When something happens next."""
        times = [] if self._look is None else [self._look]
        if self._events:
            times.append(self._events[0][0])
        if self._arrived < len(self._arrivals):
            times.append(self._arrivals[self._arrived].at)
        return min(times, default=None)

    def _happen(self, now: float) -> None:
        """All that happens at this instant; so simultaneous arrivals are one event."""
        while self._events and self._events[0][0] <= now:
            _, _, node, ends = heapq.heappop(self._events)
            if ends:
                self._end_input(node, now)
            elif node.name in self._nodes:
                node.become(NodeState.READY, now)
                self._ask(node)
        while self._arrived < len(self._arrivals) and self._arrivals[self._arrived].at <= now:
            self._backlog.append(self._arrived)
            self._arrived += 1

    def _end_input(self, node: _Simulated, now: float) -> None:
        self._finished += 1
        self._running -= 1
        node.running -= 1
        node.look()
        if node.state is NodeState.READY:
            self._ask(node)
        elif node.running == 0:
            self._leave(node, now)

    def _ask(self, node: _Simulated) -> None:
        if not node.asking:
            node.asking = True
            self._asking.append(node)

    def _hand_out(self, now: float) -> None:
        while self._backlog and self._asking:
            node = self._asking.popleft()
            node.asking = False
            # It asked and was drained since.
            if node.state is not NodeState.READY:
                continue
            index = self._backlog.popleft()
            arrival = self._arrivals[index]
            self._waits[index] = now - arrival.at
            self._running += 1
            node.running += 1
            node.look()
            self._schedule(now + self._engine.seconds(arrival, node.running), node, ends=True)
            if node.running < self._engine.max_inputs:
                self._ask(node)

    def _decide(self, now: float) -> None:
        observation = Observation(
            now=now,
            backlog=len(self._backlog),
            reserved=0,
            running=self._running,
            nodes=tuple([node.seen for node in self._nodes.values()]),
            arrived=self._arrived,
            finished=self._finished,
        )
        decision, self._state = self._policy.decide(observation, self._state)
        self._decisions += 1
        self._desired = decision.desired
        if self._every is not None:
            self._look = self._decisions * self._every
        else:
            again = decision.look_again_at
            # A look at the same instant would see the same.
            self._look = again if again is not None and again > now else None
        self._apply(observation, now)
        self._note(now)

    def _apply(self, observation: Observation, now: float) -> None:
        actions = actions_for(self._desired, observation.nodes)
        self._starts += actions.start
        self._cancels += len(actions.cancel)
        self._drains += len(actions.drain)
        for name in actions.cancel:
            self._leave(self._nodes[name], now)
        for name in actions.drain:
            node = self._nodes[name]
            node.become(NodeState.DRAINING, now)
            if node.running == 0:
                self._leave(node, now)
        for _ in range(actions.start):
            self._sequence += 1
            node = _Simulated(f"node-{self._sequence}", now)
            self._nodes[node.name] = node
            self._schedule(now + self._engine.cold_start, node, ends=False)

    def _schedule(self, at: float, node: _Simulated, *, ends: bool) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at, self._sequence, node, ends))

    def _leave(self, node: _Simulated, now: float) -> None:
        del self._nodes[node.name]
        self._spent += now - node.ordered

    def _note(self, now: float) -> None:
        counts = dict.fromkeys(NodeState, 0)
        for node in self._nodes.values():
            counts[node.state] += 1
        step = Step(
            at=now,
            starting=counts[NodeState.STARTING],
            ready=counts[NodeState.READY],
            draining=counts[NodeState.DRAINING],
            desired=self._desired,
        )
        if not self._steps or _size(step) != _size(self._steps[-1]):
            self._steps.append(step)


def _size(step: Step) -> tuple[int, int, int, int]:
    return step.starting, step.ready, step.draining, step.desired
