"""What the pools of this package have in common: Celery's pool interface, and the shutdown.

Shutdown, in this order: refuse new inputs, drain those that run (settling each as it ends),
cancel what is left when the stop is a cold one, run the services' exit, close.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from functools import partial
from typing import Any

from celery.concurrency.base import BasePool
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop

from celery_concurrent import control, logs
from celery_concurrent.batches import stuck
from celery_concurrent.inputlogs import InputLogs
from celery_concurrent.pool import frames, spans
from celery_concurrent.pool.deadlines import Deadlines
from celery_concurrent.pool.engine import Engine
from celery_concurrent.pool.hooks import Hook
from celery_concurrent.pool.hops import Hopper
from celery_concurrent.pool.inbox import Inbox
from celery_concurrent.pool.inputs import STOPPED, Input
from celery_concurrent.pool.intake import Intake
from celery_concurrent.pool.publishing import Hops
from celery_concurrent.pool.runners import Run
from celery_concurrent.pool.shortcuts import Shortcuts
from celery_concurrent.pool.slots import Slots
from celery_concurrent.pool.status import Status
from celery_concurrent.pool.threads import Threads
from celery_concurrent.pool.timelimits import TimeLimits
from celery_concurrent.settings import NodeSettings

#: Seconds that a cold stop waits for cancelled inputs to end.
COLD_STOP_TIMEOUT = 3.0


class NodePool(BasePool):
    """Runs inputs in the slots of their tasks; subclasses say on what.

    Args:
        limit: slots of the tasks without ``@concurrent``, as ``-c`` in Celery's threads pool.
        options: what Celery's worker passes: ``timeout`` and ``soft_timeout`` are the time
            limits of the command line; ``threads`` is whether there is no hub.
    """

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = True

    def __init__(self, limit: int | None = None, *args: Any, **options: Any) -> None:
        super().__init__(limit, *args, **options)
        self.settings = NodeSettings.of(self.app)
        self.inbox = Inbox()
        self.status = Status()
        #: Keeps the log lines of inputs; None for nobody.
        self.logs = InputLogs(self.settings.log_lines) if self.settings.log_lines else None
        #: Called once, at the end of a stop, warm or cold.
        self.on_closed: list[Callable[[], None]] = []
        #: Called once, by a warm stop, when the last input has settled.
        self.on_drained: list[Callable[[], None]] = []
        self._deadlines = Deadlines()
        self._time_limits = TimeLimits(
            self._deadlines,
            self.inbox.post,
            stuck_timeout=self.settings.stuck_timeout,
            drain=_drain_node,
        )
        self._watch = stuck.Watch(
            timeout=self.settings.stuck_timeout, drain=partial(self.inbox.post, _drain_node)
        )
        self._hopper = Hopper(self.make_threads("concurrent-io", most=self.settings.io_threads))
        results = None
        if self.settings.batching:
            results = self.make_threads("concurrent-results", most=1, idle_timeout=None)
        self._hops = Hops(self.app, self._hopper, results, is_green=self.is_green)
        self._shortcuts = Shortcuts(self.app)
        self._intake = Intake(self.app, self.options)
        self._stopping = False
        self._terminating = False
        slots: Slots[Input] = Slots({}, plain=limit or 1, cap=None, counted=())
        self.engine = Engine(
            self,
            slots,
            self.inbox,
            self._time_limits,
            counts_early=self._intake.counts_early,
            reserve=self.settings.reserve,
        )

    # -- runners, by subclass

    def make_threads(self, name: str, **options: Any) -> Threads:
        """Threads of the kind that may block here."""
        return Threads(name, **options)

    def start_runners(self) -> None:
        """Start what runs inputs."""
        raise NotImplementedError

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        """Call ``run`` in ``context``, where it may block; set the input's interrupter before."""
        raise NotImplementedError

    def run_async(self, input: Input, context: Context, run: Run) -> None:
        """Call ``run`` in a greenlet of an asyncio task; set the input's interrupter before."""
        raise NotImplementedError

    def run_hook_sync(self, work: Callable[[], None]) -> None:
        """Run ``work`` where it may block: it belongs to no input."""
        raise NotImplementedError

    def run_hook_async(self, coroutine: Any, done: Callable[[Any], None]) -> None:
        """Run a coroutine on the loop of the async inputs; ``done`` gets its future."""
        raise NotImplementedError

    def close_runners(self) -> None:
        """End what runs inputs; must not wait for inputs that do not end."""
        raise NotImplementedError

    def run_hook(self, hook: Callable[[], Any]) -> Hook:
        """Run a service's enter or exit."""
        return Hook(hook, run_sync=self.run_hook_sync, run_async=self.run_hook_async)

    # -- Celery's pool interface

    def on_start(self) -> None:
        self._hops.install()
        self._shortcuts.install()
        frames.install()
        control.attach(self)
        stuck.attach(self._watch)
        logs.keep(self.logs)
        if self._is_without_hub:
            self.inbox.start_thread()
        self.start_runners()

    def register_with_event_loop(self, loop: Any) -> None:
        self.inbox.attach(loop)

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        *,
        accept_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Take an input.

        Celery passes a bound method of its request as each callback; the request is what is
        kept, for a redelivery may put another in its place. Returns None: Celery would
        otherwise terminate the input a second time by what is returned.
        """
        request = getattr(accept_callback, "__self__", None)
        if request is None or kwargs:
            raise NotImplementedError("this pool runs Celery's requests, nothing else")
        make = partial(
            self._intake.input_of,
            request,
            target,
            args,
            groups=self.slots.groups,
            soft_limit=soft_timeout,
            hard_limit=timeout,
        )
        self.engine.take(request, make)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel the input with this token (Celery's request calls it its worker's pid)."""
        self.engine.cancel(pid)

    def flush(self) -> None:
        self.engine.forget_waiting()

    def hop(self, call: Callable[[], bool]) -> bool:
        """Make a call that blocks, from wherever an input runs."""
        return self._hopper.hop(call)

    # -- size

    @property
    def slots(self) -> Slots[Input]:
        """The node's slots."""
        return self.engine.slots

    def size(self, slots: Slots[Input]) -> None:
        """Give the pool the slots that the worker's queues ask for, before it starts."""
        self.engine.slots = slots
        self.limit = slots.total

    def count(self, groups: Iterable[str]) -> None:
        """These groups' queues are consumed too, from now on."""
        self.slots.count(groups)
        self.limit = self.slots.total

    def grow(self, n: int = 1) -> None:
        """Add slots, up to max_inputs.

        Raises:
            ValueError: the node has as many as its functions allow.
        """
        largest = self.slots.largest
        if largest is not None and self.slots.size >= largest:
            raise ValueError(
                f"cannot grow by {n}: the node has the {largest} slots of its functions' "
                "max_inputs; raise max_inputs, or start another node"
            )
        wanted = self.slots.size + n
        self.resize(wanted if largest is None else min(wanted, largest))

    def shrink(self, n: int = 1) -> None:
        """Remove slots; what runs in them runs on.

        Raises:
            ValueError: none would be left.
        """
        if self.slots.size - n < 1:
            raise ValueError(f"cannot shrink {self.slots.size} slots by {n}: one must be left")
        self.resize(self.slots.size - n)

    def resize(self, total: int) -> None:
        """Set the node's size, within max_inputs."""
        self.engine.start_soon(self.slots.resize(total))
        self.limit = self.slots.total

    def set_limit(self, group: str, limit: int) -> None:
        """Set the slots of one function or service; may be called from any thread."""
        self.engine.start_soon(self.slots.set_limit(group, limit))
        self.limit = self.slots.total

    def hold(self, ceilings: Mapping[str, int]) -> None:
        """Keep these functions and services to so many slots each, and the others to none.

        From any thread, for one owner: each call takes the place of the one before. Limits stay
        as they are below, and count again when their ceiling is gone.
        """
        self.engine.start_soon(self.slots.hold(ceilings))
        self.limit = self.slots.total

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        node, _ = self.slots.figures()
        info.update(
            {
                "max-concurrency": node.slots,
                "running": node.running,
                "target": node.target,
                # Sentences, for Flower shows a list of them as such.
                "slots": [str(self.slots.groups[name]) for name in self.slots.counted],
                # As prefork tells them.
                "timeouts": [
                    self.options.get("soft_timeout") or 0,
                    self.options.get("timeout") or 0,
                ],
            }
        )
        return info

    # -- shutdown

    def on_close(self) -> None:
        self.status.enters("draining")
        self.engine.refuse()

    def on_stop(self) -> None:
        """Drain and close; a cold stop has a deadline. Stopping twice changes nothing."""
        self.status.enters("draining")
        self.engine.refuse()
        if self._stopping:  # a signal handler's stop within the first, or after it
            return
        self._stopping = True
        self._drain()
        if not self._is_cold:
            for drained in self.on_drained:
                drained()
        self.close_runners()
        for input in self.engine.running:
            spans.end(input, None)
        self._deadlines.close()
        self._hopper.close()
        frames.uninstall()
        self._shortcuts.uninstall()
        self._hops.uninstall()
        self.inbox.close()
        control.detach(self)
        stuck.detach(self._watch)
        logs.keep(None)
        for closed in self.on_closed:
            closed()

    def on_terminate(self) -> None:
        """A cold stop: Celery may have called :meth:`on_stop` before."""
        self._terminating = True
        self.on_stop()

    def _drain(self) -> None:
        cold_until: float | None = None
        while self.engine.has_unfinished:
            if self._is_cold:
                cold_until = cold_until or time.monotonic() + COLD_STOP_TIMEOUT
                self.engine.end_all(STOPPED)
                if time.monotonic() > cold_until:
                    break
            self._settle_posted(0.2)
        self._settle_posted(0.0)

    def _settle_posted(self, timeout: float) -> None:
        """The consumer's hub no longer runs: do here what its turns would do."""
        if self._is_without_hub:
            time.sleep(min(timeout, 0.05))  # the inbox's own thread settles
            return
        self.inbox.drain(timeout)
        hub = get_event_loop()
        if hub is not None:
            hub.fire_timers()  # heartbeats

    @property
    def _is_cold(self) -> bool:
        # Celery sets it when a signal asks for a cold stop, perhaps in the midst of a warm one.
        return self._terminating or worker_state.should_terminate not in (None, False)

    @property
    def _is_without_hub(self) -> bool:
        return bool(self.options.get("threads", True))


def _drain_node() -> None:
    """Have the worker stop warmly, with exit code 1; its loop looks at each turn."""
    if worker_state.should_stop is None:
        worker_state.should_stop = 1
