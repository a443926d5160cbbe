"""The pool of ``-P eventlet`` when the app has concurrent tasks: green threads and their hub.

Celery has monkey-patched everything by then, so ``threading`` here is eventlet's. Sync inputs
run as green threads. ``async def`` inputs are asyncio tasks on eventlet's asyncio hub, which
is put in place of the default one before anything uses it: each step of them runs in the hub's
own greenlet, where nothing may wait, and the hops (:mod:`.hops`) take what blocks elsewhere.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextvars import Context
from typing import Any

from celery import signals
from celery.concurrency.eventlet import Timer

from celery_concurrent.errors import MissingExtraError
from celery_concurrent.pool.core import NodePool
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.loop import AsyncInputs
from celery_concurrent.pool.runners import Run
from celery_concurrent.pool.threads import Threads

try:
    import eventlet
    from eventlet import hubs, patcher
    from eventlet.hubs.asyncio import Hub
    from greenlet import getcurrent

    from celery_concurrent.pool.greensignals import GreenSignals
except ImportError as error:
    raise MissingExtraError(
        '-P eventlet needs eventlet 0.36 or later: pip install "celery-concurrent[eventlet]"'
    ) from error


class LateHub(Hub):
    """The asyncio hub, made after eventlet has patched the modules that asyncio imports.

    eventlet unpatches asyncio itself, but a ``selectors`` that is imported by then has bound
    the green ``select`` and lost ``epoll``: the loop gets a selector of an unpatched copy
    (eventlet 0.36 to 0.41; with EVENTLET_HUB=asyncio the hub is there in time).
    """

    def _post_initialize(self) -> None:
        import asyncio

        patcher._unmonkey_patch_asyncio_all()
        self.loop = asyncio.SelectorEventLoop(_unpatched_selectors().DefaultSelector())
        asyncio.set_event_loop(self.loop)
        self.sleep_event = asyncio.Event()


def _unpatched_selectors() -> Any:
    spec = importlib.util.find_spec("selectors")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    green_select, sys.modules["select"] = sys.modules["select"], patcher.original("select")
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules["select"] = green_select
    return module


if not isinstance(hubs.get_hub(), Hub):
    hubs.use_hub(LateHub)


class TaskPool(NodePool):
    """Runs sync inputs as green threads and async inputs on eventlet's asyncio hub."""

    Timer = Timer
    is_green = True
    task_join_will_block = False

    def make_threads(self, name: str, **options: Any) -> Threads:
        return Threads(name, spawn=_spawn, **options)

    @staticmethod
    def spawn_n(function: Callable[..., Any], *args: Any) -> None:
        """Start a green thread: Celery's remote control runs in one of the pool's."""
        eventlet.spawn_n(function, *args)

    def start_runners(self) -> None:
        self.threads = self.make_threads("concurrent-input")
        self.inputs = AsyncInputs(hubs.get_hub().loop)
        self.signals = GreenSignals(on_cold=self.engine.refuse)
        self.signals.install()
        signals.eventlet_pool_started.send(sender=self)

    def apply_async(
        self, target: Callable[..., Any], args: Any = None, kwargs: Any = None, **options: Any
    ) -> None:
        signals.eventlet_pool_apply.send(sender=self, target=target, args=args, kwargs=kwargs)
        super().apply_async(target, args, kwargs, **options)

    def run_sync(self, input: Input, context: Context, run: Run) -> None:
        def work() -> None:
            input.interrupter = GreenInterrupter(input)
            context.run(run, input)

        self.threads.submit(work)

    def run_async(self, input: Input, context: Context, run: Run) -> None:
        self.inputs.start(input, context, run)

    def run_hook_sync(self, work: Callable[[], None]) -> None:
        self.threads.submit(work)

    def run_hook_async(self, coroutine: Any, done: Callable[[Any], None]) -> None:
        self.inputs.run(coroutine, done)

    def on_stop(self) -> None:
        signals.eventlet_pool_preshutdown.send(sender=self)
        super().on_stop()
        signals.eventlet_pool_postshutdown.send(sender=self)

    def close_runners(self) -> None:
        if hasattr(self, "threads"):
            self.threads.close()
            self.signals.uninstall()


class GreenInterrupter:
    """Raises exceptions in the green thread that made it, where it waits."""

    def __init__(self, input: Input) -> None:
        self._input = input
        self._thread = getcurrent()

    def interrupt(self, error: type[BaseException]) -> None:
        """Have it raised by the hub, at whose next turn the input may have returned."""
        hubs.get_hub().schedule_call_global(0, self._throw, error)

    def clear(self) -> None:
        """Nothing to take back: the hub asks whether the input still runs."""

    def _throw(self, error: type[BaseException]) -> None:
        if not self._input.left and not self._thread.dead:
            self._thread.throw(error())


def _spawn(run: Callable[[], None], _name: str) -> None:
    """Start a green thread without waiting for it, as ``threading.Thread.start`` would."""
    eventlet.spawn_n(run)
