"""The local engine: nodes are processes of this machine, and outlive whoever started them."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from celery_concurrent.autoscaler.local import adoption
from celery_concurrent.autoscaler.local.commands import Command
from celery_concurrent.autoscaler.local.drains import Drains
from celery_concurrent.autoscaler.local.folder import Folder, slug
from celery_concurrent.autoscaler.local.processes import Handle, end_session
from celery_concurrent.autoscaler.local.quickstart import Quickstart
from celery_concurrent.autoscaler.local.records import Records
from celery_concurrent.autoscaler.local.starting import LOOK_AGAIN, SIGN_WITHIN, Starter
from celery_concurrent.autoscaler.local.tended import Tended
from celery_concurrent.autoscaler.local.watch import Watcher
from celery_concurrent.autoscaler.provider import (
    FleetSpec,
    NodeProcess,
    NodeStartError,
    ProcessState,
    ProviderError,
)

logger = logging.getLogger(__name__)

#: Seconds in which the template tells how a node has ended.
_CODE_WITHIN = 1.0


def unique_name(queue: str) -> str:
    """A node name that was never given before."""
    return f"{slug(queue)}-{secrets.token_hex(4)}@{socket.gethostname()}"


class LocalProvider:
    """Starts nodes from a template process, or fresh; see the package for what always holds.

    Linux only. Construct it on the main thread, or on one that outlives it.

    Args:
        command: how nodes are called.
        folder: where records and logs are kept, see :func:`.folder.state_folder`.
        drain_timeout: seconds that a node may drain before it is ended; None for as long as
            it takes.
        fork: whether there is a template; without, every node is a fresh process.
        cwd: where nodes find the app; this process's own folder when None.
        environ: what nodes inherit; ``os.environ`` when None.
        handed: gives the device locks that a node is to keep until its end, as descriptors by
            UUID, of what is added to its environment.
        on_change: called, on a thread of the provider's, when a node has ended.
        name_of: makes a node's name of its queue's.
        clock: monotonic seconds.

    Raises:
        FolderInUseError: another autoscaler has these nodes.
        ProviderError: not on this machine, or the folder cannot be used.
    """

    def __init__(
        self,
        command: Command,
        *,
        folder: Path,
        drain_timeout: float | None = 600.0,
        fork: bool = True,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        handed: Callable[[Mapping[str, str]], Mapping[str, int]] = lambda _env: {},
        on_change: Callable[[], None] = lambda: None,
        name_of: Callable[[str], str] = unique_name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not hasattr(os, "pidfd_open"):
            raise ProviderError("the local provider needs Linux 5.3 or newer (pidfd_open)")
        self._command = command
        self._drain_timeout = drain_timeout
        self._handed = handed
        self._on_change = on_change
        self._name_of = name_of
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._nodes: dict[str, Tended] = {}
        self._codes: dict[int, int] = {}
        self._is_change_told = True
        self._closed = False
        self._folder = Folder(folder)
        self._records = Records(self._folder.records)
        self._drains = Drains(self._records, clock)
        self._watcher = Watcher(self._tick)
        self._records.sweep()
        self._adopt_all()
        inherited = os.environ if environ is None else environ
        self._starter = Starter(command.app, self._folder, self._records, inherited, cwd)
        if fork:
            self._watch_template(self._starter.load_template(self._told_code))
        self._watcher.start()

    # -- what the loop calls

    def start(self, fleet: FleetSpec, env: Mapping[str, str]) -> str:
        name = self._name_of(fleet.queue)
        words = self._command.words(fleet, name)
        with self._lock:
            self._require_open()
            node = Tended(name=name, queue=fleet.queue, env=dict(env), began=self._clock())
            try:
                self._starter.start(node, words, fleet.gpus, self._handed(node.env))
            except OSError as error:
                self._take_up_failed(node)
                raise NodeStartError(f"{name} could not be started: {error}") from error
            self._look_after(node)
            how = "forked" if node.forked else "started fresh"
            logger.info("node %s %s pid=%d queue=%s", name, how, node.pid, fleet.queue)
        return name

    def drain(self, name: str) -> None:
        with self._lock:
            node = self._nodes.get(name)
            if node is None or node.state in (ProcessState.DRAINING, ProcessState.ENDED):
                return
            self._require_open()
            self._drains.begin(node, self._drain_timeout)
            logger.info("node %s drains timeout=%s", name, self._drain_timeout)
        self._watcher.wake()

    def stop(self, name: str) -> None:
        with self._lock:
            node = self._nodes.get(name)
            if node is None:
                return
            if not node.lives:
                del self._nodes[name]
                return
            self._require_open()
            self._drains.end(node)
            logger.info("node %s is stopped", name)
        self._watcher.wake()

    def list(self) -> Sequence[NodeProcess]:
        with self._lock:
            return [node.told() for node in self._nodes.values()]

    def close(self, *, stop_all: bool = False) -> None:
        if stop_all and not self._closed:
            for name in list(self._nodes):
                self.drain(name)
            with self._changed:
                self._changed.wait_for(lambda: not any(n.lives for n in self._nodes.values()))
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._watcher.close()
        self._starter.close()
        for node in self._nodes.values():
            if node.handle is not None:
                node.handle.close()
        self._folder.close()

    # -- looking after

    def _take_up_failed(self, node: Tended) -> None:
        """Whatever failed, there may be a process: have it leave, and its devices with it."""
        node.state, node.handle = ProcessState.PENDING, None
        self._nodes[node.name] = node
        try:
            self._adopt()
        except OSError as error:
            logger.warning("node %s is looked for again: %s", node.name, error)
        if node.name in self._nodes:
            self.drain(node.name)
            self._watcher.wake()

    def _look_after(self, node: Tended) -> None:
        self._nodes[node.name] = node
        if node.handle is not None:
            self._watcher.add(node.handle, lambda: self._has_ended(node))

    def _adopt_all(self) -> None:
        until = self._clock() + SIGN_WITHIN
        with self._lock:
            while self._adopt() and self._clock() < until:
                time.sleep(LOOK_AGAIN)

    def _adopt(self) -> bool:
        """Take up what others have left; whether some have still to say who they are."""
        known = {
            name for name, node in self._nodes.items() if node.state is not ProcessState.PENDING
        }
        pending = {name for name in self._nodes if name not in known}
        for found in adoption.find(self._records, known):
            record = found.record
            pending.discard(record.name)
            node = self._nodes.get(record.name) or Tended(
                name=record.name,
                queue=record.queue,
                env=record.env,
                began=self._clock(),
                state=ProcessState.PENDING,
                adopted=True,
            )
            self._nodes[node.name] = node
            if found.handle is not None:
                self._take_up(node, found.handle)
        for name in pending:  # never came to life
            del self._nodes[name]
            self._records.remove(name)  # its mark, if there is one
            self._is_change_told = False
            self._changed.notify_all()
        return any(node.state is ProcessState.PENDING for node in self._nodes.values())

    def _take_up(self, node: Tended, handle: Handle) -> None:
        how = "adopted" if node.adopted else "found"
        logger.info("node %s %s pid=%d", node.name, how, handle.identity.pid)
        node.handle, node.pid = handle, handle.identity.pid
        node.enter(ProcessState.RUNNING, self._clock())
        self._drains.resume(node, self._drain_timeout)
        self._look_after(node)

    def _tick(self) -> float | None:
        """Do what is due; seconds until the next is."""
        with self._lock:
            now = self._clock()
            if any(node.state is ProcessState.PENDING for node in self._nodes.values()):
                self._adopt()
            self._drains.end_overdue(self._nodes.values())
            for node in list(self._nodes.values()):
                if node.code_until is not None and node.code_until <= now:
                    self._bury(node)
            is_change_told, self._is_change_told = self._is_change_told, True
            until_next = self._until_next(now)
        if not is_change_told:
            self._on_change()  # without the lock: it may wait for who waits for this
        return until_next

    def _until_next(self, now: float) -> float | None:
        times = [
            now + LOOK_AGAIN for node in self._nodes.values() if node.state is ProcessState.PENDING
        ]
        for node in self._nodes.values():
            times += [at for at in (node.deadline, node.code_until) if at is not None]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - now)

    # -- ends

    def _has_ended(self, node: Tended) -> None:
        with self._lock:
            assert node.handle is not None
            # While it is a zombie its id is its own: its session first, then its exit code.
            left = end_session(node.handle.identity)
            # Not before: where no descriptor is left to look for its session, this is called again.
            self._watcher.remove(node.handle)
            node.deadline = None
            if left:
                logger.warning("node %s left %d process(es), which are ended", node.name, left)
            node.exit_code = _reaped(node.handle.identity.pid)
            if node.exit_code is None:
                node.exit_code = self._codes.pop(node.handle.identity.pid, None)
            if node.exit_code is None and node.forked:
                node.code_until = self._clock() + _CODE_WITHIN
            else:
                self._bury(node)

    def _told_code(self, pid: int, code: int) -> None:
        with self._lock:
            for node in self._nodes.values():
                if node.pid != pid or not node.lives:
                    continue
                if node.code_until is None:  # told before it was seen
                    self._codes[pid] = code
                else:
                    node.exit_code = code
                    self._bury(node)
                return

    def _bury(self, node: Tended) -> None:
        """Its process is gone, and how it went is known or never will be."""
        assert node.handle is not None
        was = node.state
        node.handle.close()
        node.handle = node.code_until = None
        node.last_lines = self._folder.last_lines(node.name)
        node.enter(ProcessState.ENDED, self._clock())
        self._records.remove(node.name)
        self._folder.prune_logs({name for name, other in self._nodes.items() if other.lives})
        logger.info("node %s ended exit_code=%s was=%s", node.name, node.exit_code, was.value)
        self._is_change_told = False
        self._changed.notify_all()

    def _hear_template(self) -> None:
        template = self._starter.template
        if template is None or template.hear():
            return
        self._watcher.remove(template.reports)
        with self._lock:
            if not self._closed:
                # On the watcher's thread, which lives as long as the provider: see Quickstart.
                self._watch_template(self._starter.replace_template(self._told_code))

    def _watch_template(self, template: Quickstart | None) -> None:
        if template is not None:
            self._watcher.add(template.reports, self._hear_template)

    def _require_open(self) -> None:
        if self._closed:
            raise ProviderError("this provider is closed: make another one")


def _reaped(pid: int) -> int | None:
    """The exit code of a child that has ended; None of what is no child of this process."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)
