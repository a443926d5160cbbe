"""The inputs of a node, from their slot to their settling.

The *settling thread* (the consumer's own, see :mod:`.inbox`) starts inputs, calls Celery's
callbacks and gives slots back. Runners run the tracer and post its outcome.

Where inputs wait in line, a slot passes on before that: see :mod:`.passing`.

Every input settles exactly once, by the first of: its tracer's outcome, its hard time limit,
a revoke that Celery announces, the loss of its lease, which leaves it to another node, or the end
of the node, which leaves its message unacknowledged and so gives it back to the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from celery.utils.log import get_logger

from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.pool import spans
from celery_concurrent.pool.inbox import Inbox
from celery_concurrent.pool.inputs import LOST, Hold, Input
from celery_concurrent.pool.outcomes import Outcome, run_tracer
from celery_concurrent.pool.passing import Passing
from celery_concurrent.pool.redeliveries import Redeliveries
from celery_concurrent.pool.requests import forget, is_stopping
from celery_concurrent.pool.reserve import Reserves
from celery_concurrent.pool.runners import Following, Run, Runners
from celery_concurrent.pool.slots import Slots
from celery_concurrent.pool.timelimits import TimeLimits
from celery_concurrent.pool.timing import Timing

logger = get_logger(__name__)

#: Seconds that a node which stops gives an ended input, for its finally blocks.
GRACE = 1.0


class EarlyGate(Protocol):
    """Counts, on the settling thread, what runs though the broker has forgotten it."""

    def started_early(self, request: Any) -> None:
        """Called before the acknowledgement."""

    def ended_early(self, request: Any) -> None:
        """Called when the slot comes back."""


class Engine:
    """Starts, settles and ends inputs.

    Args:
        runners: what they run on.
        slots: who may run.
        inbox: reaches the settling thread.
        time_limits: ends what runs too long.
        counts_early: whether an early acknowledged input of this request counts as fetched.
        reserve: the user's, None for none.
    """

    def __init__(
        self,
        runners: Runners,
        slots: Slots[Input],
        inbox: Inbox,
        time_limits: TimeLimits,
        *,
        counts_early: Callable[[Any], bool],
        reserve: int | None,
    ) -> None:
        self.slots = slots
        self.timing = Timing()
        self.reserves = Reserves(reserve)
        #: Where the consumer counts inputs that are acknowledged before they run.
        self.gate: EarlyGate | None = None
        #: Gives that under which the consumer takes inputs now.
        self.hold: Callable[[], Hold | None] = _nothing
        #: Called when an input has to wait for its slot.
        self.on_wait: Callable[[], None] = _nothing
        #: Puts messages of one connection back at the head of their queues.
        self.give_back: Callable[[list[Any]], None] = _leave
        self._runners = runners
        self._inbox = inbox
        self._time_limits = time_limits
        self._counts_early = counts_early
        self.redeliveries = Redeliveries()
        self._inputs: dict[int, Input] = {}
        self._refusing = False
        self._context = copy_context()
        self.passing = Passing(self._announce)

        # One function for all inputs: a method is an object more for each, and a call more on the
        # C stack, of which each waiting async input keeps a copy.
        def run(input: Input) -> Following | None:
            return self._run(input)

        self._work: Run = run

    @property
    def running(self) -> list[Input]:
        """The inputs that hold a slot."""
        return [input for input in list(self._inputs.values()) if input.started_at is not None]

    @property
    def held(self) -> list[Input]:
        """The inputs in a slot, or in line for one."""
        return list(self._inputs.values())

    def has(self, message: Any) -> bool:
        """Whether an input of this message waits for a slot here, or runs."""
        return any(input.request.message is message for input in self._inputs.values())

    @property
    def is_refusing(self) -> bool:
        """Whether nothing more is started."""
        return self._refusing

    @property
    def has_unfinished(self) -> bool:
        """Whether a stop has to wait.

        One that was ended and does not notice has settled: the node leaves without it, after
        a short while for those that do.
        """
        now = time.monotonic()
        return any(
            input.ended is None or now - (input.ended_at or now) < GRACE for input in self.running
        )

    def refuse(self) -> None:
        """Start nothing more: what comes stays unacknowledged, and goes back to its queue.

        Signal handlers call this: it takes no lock. A slot that is just passing still passes.
        """
        self._refusing = True

    def take(self, request: Any, make: Callable[[], Input]) -> None:
        """Take an input: it starts when it has a slot."""
        if self._refusing or self.redeliveries.take_over(request):
            return
        input = make()
        self._inputs[input.token] = input
        if self.slots.take(input):
            self.start([input], waited=False)
        else:
            self.on_wait()

    def start(self, inputs: list[Input], waited: bool = True) -> None:
        """Start inputs that hold a slot; a list instead of recursion, for some end at once."""
        while inputs:
            input = inputs.pop(0)
            try:
                started = self._accept(input, waited)
            except Exception:
                logger.exception("starting %s failed: leaving it to its queue", input)
                started = False
            if not started:
                inputs.extend(self._release(input))

    def start_soon(self, inputs: list[Input]) -> None:
        """The same from any thread."""
        self._inbox.post(partial(self.start, inputs))

    def cancel(self, token: int) -> None:
        """Cancel an input that Celery announces as revoked, or as cancelled, itself."""
        input = self._inputs.get(token)
        if input is None:
            return
        input.dropped = True  # our outcome would be a second one
        if input.end("it was revoked"):
            self._time_limits.expect_end(input)

    def drop_held(self) -> None:
        """The lease of all that is not acknowledged yet is lost: it runs elsewhere, or will."""
        for input in self.running:
            if not input.request.acknowledged:
                input.dropped = True
                if input.end(LOST):
                    self._time_limits.expect_end(input)
                forget(input.request)

    def end_all(self, reason: str) -> None:
        """End what runs; it is not settled."""
        for input in self.running:
            input.end(reason)

    def forget_waiting(self) -> list[Input]:
        """What waits for a slot, which is to be delivered again: it is this node's no more."""
        waiting = self.slots.forget_waiting()
        for input in waiting:
            self._inputs.pop(input.token, None)
        return waiting

    def send_ahead_back(self, group: str, most: int, may: Callable[[Any], bool]) -> int:
        """Have the last in line go back to their queues, where other nodes may take them.

        Args:
            group: whose line.
            most: so many at the most.
            may: whether a message can be given back.

        Returns how many it were.
        """

        def may_leave(input: Input) -> bool:
            # What was due here would not have been fetched for a slot.
            return input.request.eta is None and may(input.request.message)

        waiting = self.slots.withdraw(group, most, may_leave)
        for input in waiting:
            self._inputs.pop(input.token, None)
        if waiting:
            logger.info("%s lasts: %d inputs go back, for other nodes", group, len(waiting))
        self.send_back(waiting)
        return len(waiting)

    def send_back(self, inputs: list[Input]) -> None:
        """Have inputs that did not start go back to their queues."""
        for input in inputs:
            forget(input.request)
        if inputs:
            self.give_back([input.request.message for input in inputs])

    def _accept(self, input: Input, waited: bool) -> bool:
        """Announce the input and hand it to its runner; False when it is not to run."""
        request = input.request
        # While it waited for its slot it may have been revoked, or have expired, or the worker may
        # have been asked to stop.
        if self._refusing or (waited and (is_stopping() or request.revoked())):
            return False
        hold = self.hold()
        if waited and hold is not None and not hold.is_fresh:
            self.send_back([input])  # it may be another node's by now
            return False
        self._begin(input, hold)
        self._announce(input, request)
        if input.ended is not None:  # terminated by a revoke that was waiting for this
            return False
        self._time_limits.start(input)
        run_input = self._runners.run_async if input.is_async else self._runners.run_sync
        run_input(input, self._context_of(input), self._work)
        return True

    def _begin(self, input: Input, hold: Hold | None) -> None:
        """It has its slot, and is about to run; on any thread."""
        input.started_at = time.monotonic()
        input.hold = hold
        self.redeliveries.starts(input)

    def _announce(self, input: Input, request: Any) -> None:
        """Tell Celery's request that its input runs; by now that may have ended."""
        self.timing.started(input)
        if input.request is not request:  # a redelivery has taken its place, and knows
            return
        if self.gate is not None and self._counts_early(request):
            input.gate = self.gate
            self.gate.started_early(request)
        request.on_accepted(input.token, input.started_at)
        if request.acknowledged:  # early: it is nobody's to lose
            input.hold = None

    def _context_of(self, input: Input) -> Context:
        context = self._context.copy()
        context.run(CURRENT_INPUT.set, input)
        return context

    def _run(self, input: Input) -> Following | None:
        """On the runner."""
        spans.start(input)
        outcome = run_tracer(input)
        with input.lock:
            input.left = input.finished = True
            input.interrupter = None  # which has the input, for nothing from now on
        spans.end(input, outcome)
        if not self.slots.has_line(input.group):
            self._inbox.post(partial(self._settle, input, outcome))
            return None
        return self._settle_and_pass_on(input, outcome)

    def _settle_and_pass_on(self, input: Input, outcome: Outcome) -> Following | None:
        with self.passing.lock:
            hold, following = self.hold(), None
            if not self._refusing:
                following = self.passing.next_after(input, self.slots, hold)
            self._inbox.post(partial(self._settle, input, outcome, passed=following is not None))
            if following is None:
                return None
            self._begin(following, hold)
            self._inbox.post(self.passing.announce)
        return self._following(following)

    def _following(self, input: Input) -> Following | None:
        """What a runner needs of an input that has begun; None leaves it to its queue."""
        try:
            # Not in the context of the input that has ended, which a thread might inherit.
            self._context.copy().run(self._time_limits.start, input)
            return Following(input, self._context_of(input))
        except Exception:
            logger.exception("starting %s failed: leaving it to its queue", input)
            self._inbox.post(lambda: self.start(self._release(input)))
            return None

    def _settle(self, input: Input, outcome: Outcome, passed: bool = False) -> None:
        """Tell Celery how it ended, unless that is settled already; give its slot back.

        Args:
            input: has ended.
            outcome: how.
            passed: whether another has its slot.
        """
        try:
            self.reserves.ended(input.group, self.timing.ended(input, outcome))
            if input.ended is None and not input.dropped:
                outcome.report(input.request)
                self.redeliveries.remember(input, outcome)
            elif input.ended == LOST:
                forget(input.request)
        finally:
            if passed:
                self._part_with(input)
            else:
                self.start(self._release(input))

    def _release(self, input: Input) -> list[Input]:
        self._part_with(input)
        return self.slots.give_back(input)

    def _part_with(self, input: Input) -> None:
        self._time_limits.stop(input)
        self._inputs.pop(input.token, None)
        self.redeliveries.stops(input)
        if input.gate is not None:
            input.gate.ended_early(input.request)


def _nothing() -> None:
    """What brokers give that tell by the connection."""


def _leave(messages: list[Any]) -> None:
    """Without a consumer they go back with their connection."""
