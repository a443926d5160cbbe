"""The calls of Celery that block, made to hop while a node runs: results and publishing.

Touched, in the node's process only, and put back at its end (Celery 5.6 and 5.7):

- ``app._backend_cache`` and ``task._backend``: the result backends;
- ``app.send_task``, through which every ``delay``, ``apply_async``, ``retry`` and chain goes;
- ``group.apply_async``, which acquires a producer before it sends its tasks: the whole of it
  hops at once, or inputs that hold the last producers would wait for one another.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.backends.redis import RedisBackend
from celery.canvas import group

from celery_concurrent.pool.hops import Hopper, HoppingBackend
from celery_concurrent.pool.threads import Threads
from celery_concurrent.redis.results import BatchingBackend, ResultWriter


class Hops:
    """Installs the hops for one app.

    Args:
        app: the Celery app of the node.
        hopper: makes the calls.
        result_thread: one thread, to store results in batches; None for one by one.
        is_green: whether all of this happens in green threads.
    """

    def __init__(
        self, app: Any, hopper: Hopper, result_thread: Threads | None, *, is_green: bool
    ) -> None:
        self._is_green = is_green
        self._app = app
        self._hopper = hopper
        self._result_thread = result_thread
        self._installed = False
        self._shared: Any = app._backend_cache
        self._group_apply_async = group.apply_async

    def install(self) -> None:
        """Make the blocking calls hop."""
        self._installed = True
        app, hopper = self._app, self._hopper
        app._backend_cache = self._hopping_backend()
        for task in app.tasks.values():
            own = getattr(task, "_backend", None)
            if own is not None and not isinstance(own, HoppingBackend):
                task._backend = HoppingBackend(functools.partial(_identity, own), hopper)
        app.send_task = functools.partial(hopper.hop, app.send_task)
        apply_async = self._group_apply_async

        @functools.wraps(apply_async)
        def hopping_apply_async(self: group, *args: Any, **kwargs: Any) -> Any:
            return hopper.hop(apply_async, self, *args, **kwargs)

        group.apply_async = hopping_apply_async

    def _hopping_backend(self) -> HoppingBackend:
        real = self._backend()
        if self._result_thread is None or type(real) is not RedisBackend:
            return HoppingBackend(self._backend, self._hopper)
        writer = ResultWriter(
            self._app._get_backend,
            self._result_thread,
            self._hopper,
            sends_from_loop=not self._is_green,
        )
        return BatchingBackend(self._backend, self._hopper, writer)

    def uninstall(self) -> None:
        """Put everything back."""
        if not self._installed:
            return
        self._installed = False
        app = self._app
        app._backend_cache = self._shared
        vars(app).pop("send_task", None)
        group.apply_async = self._group_apply_async
        for task in app.tasks.values():
            if isinstance(getattr(task, "_backend", None), HoppingBackend):
                task._backend = vars(task._backend)["_resolve"]()
        if self._result_thread is not None:
            self._result_thread.close()

    def _backend(self) -> Any:
        """The real backend of this thread; Redis' is one for all, with one connection pool."""
        if self._shared is not None:
            return self._shared
        local = self._app._local
        backend = getattr(local, "backend", None)
        if backend is None:
            backend = self._app._get_backend()
            if isinstance(backend, RedisBackend):
                self._shared = backend
            else:
                local.backend = backend
        return backend


def _identity(value: Any) -> Any:
    return value
