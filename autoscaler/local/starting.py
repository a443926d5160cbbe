"""Bringing a node to life: its record first, then a fork of the template or a fresh process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from celery_concurrent.autoscaler.local.commands import environment, start_fresh
from celery_concurrent.autoscaler.local.folder import Folder
from celery_concurrent.autoscaler.local.processes import Handle, boot
from celery_concurrent.autoscaler.local.quickstart import Quickstart, Refusal, TemplateLostError
from celery_concurrent.autoscaler.local.records import Record, Records
from celery_concurrent.autoscaler.local.tended import Tended
from celery_concurrent.gpu.locks import handing

logger = logging.getLogger(__name__)

#: Seconds in which a process that is there says who it is.
SIGN_WITHIN = 2.0
LOOK_AGAIN = 0.05
#: Seconds that a template must have lived to be worth another one.
LASTS = 60.0
_FRESH = "nodes are started as fresh processes: %s"


class Starter:
    """Starts the nodes of an app.

    Args:
        app: what ``celery -A`` takes.
        folder: where logs go.
        records: where a node's record stands before its process.
        environ: what nodes inherit.
        cwd: where they find the app.
    """

    def __init__(
        self,
        app: str,
        folder: Folder,
        records: Records,
        environ: Mapping[str, str],
        cwd: Path | None,
    ) -> None:
        self._app = app
        self._folder = folder
        self._records = records
        self._environ = dict(environ)
        self._cwd = cwd
        self._refused: set[str] = set()
        self._loaded_at = 0.0
        #: None when every node is to be a fresh process.
        self.template: Quickstart | None = None

    def load_template(self, on_exit: Callable[[int, int], None]) -> Quickstart | None:
        """Start the template; it takes orders once its app is imported."""
        self._loaded_at = time.monotonic()
        log = self._folder.open_log("template")
        try:
            self.template = Quickstart(
                self._app,
                env=environment(self._environ, "", {}),
                log=log,
                cwd=self._cwd,
                on_exit=on_exit,
            )
        except OSError as error:
            logger.warning(_FRESH, f"no template ({error})")
        finally:
            os.close(log)
        return self.template

    def replace_template(self, on_exit: Callable[[int, int], None]) -> Quickstart | None:
        """The template has ended: start another, unless it would not last any longer."""
        assert self.template is not None
        was_ready = self.template.was_ready
        self.close()
        self.template = None
        if not was_ready or time.monotonic() - self._loaded_at < LASTS:
            logger.warning(_FRESH, "the template has ended")
            return None
        logger.warning("the template has ended: another one is started, meanwhile fresh processes")
        return self.load_template(on_exit)

    def start(
        self, node: Tended, words: Sequence[str], gpus: float, locks: Mapping[str, int]
    ) -> None:
        """Give ``node`` a process that runs ``celery`` with these words and holds these locks.

        Raises:
            OSError: there is no room for the record, no process to be had, or none to be held.
                Whether one was made all the same, the record tells.
        """
        log = self._folder.open_log(node.name)
        try:
            handle = self._fork(node, words, gpus, log, locks)
            if handle is None:
                handle = self._start_fresh(node, words, log, locks)
            node.handle = handle
        finally:
            os.close(log)
        node.pid = node.handle.identity.pid

    def close(self) -> None:
        """End the template. Nodes run on."""
        if self.template is not None:
            self.template.close()
            self.template.reports.close()

    def _fork(
        self, node: Tended, words: Sequence[str], gpus: float, log: int, locks: Mapping[str, int]
    ) -> Handle | None:
        """None when it must be a fresh process."""
        if self.template is None or not self.template.is_ready:
            return None
        record = self._record(node)
        env = environment({}, node.name, node.env)
        try:
            answer = self.template.fork(words, env, gpus, record=record, log=log, locks=locks)
        except TemplateLostError as error:
            logger.warning(_FRESH, f"the template is lost ({error})")
            answer = None
        finally:
            os.close(record)
        if answer is None:
            return self._salvage(node)
        if isinstance(answer, Refusal):
            self._records.remove(node.name)
            self._say_once(answer.reason)
            return None
        node.forked = True
        return answer

    def _say_once(self, reason: str) -> None:
        if reason not in self._refused:
            self._refused.add(reason)
            logger.warning(_FRESH, reason)

    def _salvage(self, node: Tended) -> Handle | None:
        """The node that a lost template has made all the same; else its record is removed."""
        until = time.monotonic() + SIGN_WITHIN
        while self._records.is_locked(node.name) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN)
        if self._records.is_locked(node.name):
            raise OSError("its process does not say who it is")
        signed = self._records.get(node.name)
        process = signed.process if signed is not None else None
        handle = Handle.of(process) if process is not None else None
        if handle is None:
            self._records.remove(node.name)
        return handle

    def _start_fresh(
        self, node: Tended, words: Sequence[str], log: int, locks: Mapping[str, int]
    ) -> Handle:
        record = self._record(node)
        try:
            env = {**environment(self._environ, node.name, node.env), **handing(locks)}
            keep = tuple(locks.values())
            pid = start_fresh(words, record=record, log=log, keep=keep, env=env, cwd=self._cwd)
        finally:
            os.close(record)
        return Handle.of_child(pid)

    def _record(self, node: Tended) -> int:
        record = Record(name=node.name, queue=node.queue, boot=boot(), env=node.env)
        return self._records.create(record)
