"""The template: a process that has imported the app and is forked into its nodes.

It touches neither the broker nor CUDA, has one thread, and dies with the autoscaler; the nodes
that it forked do not. ``python -m celery_concurrent.autoscaler.local.template`` is called by
:mod:`.quickstart` and by nobody else.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery_concurrent import streams
from celery_concurrent.autoscaler.local import safety, wire
from celery_concurrent.autoscaler.local.processes import Handle, stat
from celery_concurrent.autoscaler.local.records import sign
from celery_concurrent.gpu.locks import handing

_PR_SET_PDEATHSIG = 1
_UNSIGNED = 74  # EX_IOERR


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A node to be: the words after ``celery``, its environment, its open record, log and locks."""

    words: tuple[str, ...]
    env: dict[str, str]
    gpus: float
    record: int
    log: int
    locks: dict[str, int]

    @classmethod
    def of(cls, message: dict[str, Any], fds: Sequence[int]) -> Order:
        record, log, *locks = fds
        return cls(
            words=tuple(message["words"]),
            env=message["env"],
            gpus=message["gpus"],
            record=record,
            log=log,
            locks=dict(zip(message["locks"], locks, strict=True)),
        )

    @property
    def descriptors(self) -> set[int]:
        return {self.record, self.log, *self.locks.values()}

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Template:
    """Serves orders until the autoscaler is gone.

    Args:
        orders: where they come from, and are answered.
        reports: where it tells that it is ready, and how its nodes have ended.
        read: the names of the environment that the app's import has read.
    """

    def __init__(self, orders: socket.socket, reports: socket.socket, read: set[str]) -> None:
        self._orders = orders
        self._reports = reports
        self._read = read
        # poll, not epoll: it has no descriptor that a fork would share.
        self._selector = selectors.PollSelector()
        self._selector.register(orders, selectors.EVENT_READ)
        self._nodes: list[Handle] = []

    def serve(self) -> Order | None:
        """Returns None in the template, when it is to end, and an order in each fork of it."""
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, Handle):
                    self._bury(key.fileobj)
                    continue
                received = wire.receive(self._orders)
                if received is None:
                    return None
                order = Order.of(*received)
                if self._fork(order):
                    return order

    def _fork(self, order: Order) -> bool:
        own = {self._orders.fileno(), self._reports.fileno(), *order.descriptors}
        own |= {node.fileno() for node in self._nodes}
        reason = safety.against_any_fork(own) or safety.against_this_fork(
            order.env, order.gpus, self._read
        )
        if reason is not None:
            order.close()
            wire.send(self._orders, {"refused": reason})
            return False
        # From here on the node is there: it holds its record's lock before it runs a line.
        pid = os.fork()
        if pid == 0:
            self._let_go()
            return True
        node = Handle.of_child(pid)
        self._nodes.append(node)
        self._selector.register(node, selectors.EVENT_READ)
        order.close()
        wire.send(self._orders, {"pid": pid, "start": node.identity.start}, fds=(node.fileno(),))
        return False

    def _bury(self, node: Handle) -> None:
        self._selector.unregister(node)
        self._nodes.remove(node)
        _, status = os.waitpid(node.identity.pid, 0)
        node.close()
        code = os.waitstatus_to_exitcode(status)
        wire.send(self._reports, {"ended": node.identity.pid, "exit_code": code})

    def _let_go(self) -> None:
        self._orders.close()
        self._reports.close()
        for node in self._nodes:
            node.close()


def become(order: Order) -> None:
    """Turn this fork into a node, as if it had been started by its command."""
    identity = stat(os.getpid())
    try:
        assert identity is not None
        sign(order.record, identity.identity)
    except OSError as error:
        os.write(order.log, f"no room to sign the node's record: {error}\n".encode())
        os._exit(_UNSIGNED)
    os.setsid()
    _redirect(order.log)
    _reset_signals()
    os.environ.update(order.env)
    os.environ.update(handing(order.locks))
    _reseed()
    _show_as(["celery", *order.words])
    streams.forgive()
    from celery import __main__ as command

    sys.argv = [str(command.__file__), *order.words]
    command.main()


def _redirect(log: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)


def _reset_signals() -> None:
    """As in a process that has just been started: an app's import may have set handlers."""
    kept = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}  # SIGPIPE: ignored by Python itself
    for number in signal.valid_signals() - kept:
        handler = signal.getsignal(number)
        if callable(handler) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reseed() -> None:
    """Forks of one process must not draw the same numbers."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _show_as(words: Sequence[str]) -> None:
    """Have ``ps`` show these words, in the room that the template's own arguments took."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        text = file.read()
    fields = text[text.rindex(")") + 1 :].split()
    begin, end = int(fields[45]), int(fields[46])
    room = end - begin
    if begin <= 0 or room <= 0:
        return
    shown = b"\0".join(os.fsencode(word) for word in words)[: room - 1]
    # All of it up to the end, whose byte stays a NUL: else the kernel reads on.
    ctypes.memmove(begin, shown.ljust(room, b"\0"), room)


def _die_with(parent: int) -> None:
    """The kernel's promise, and then a look whether it came too late; see embedded.py."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _load(app_name: str) -> None:
    from celery.app.utils import find_app

    from celery_concurrent.worker.warmup import import_worker

    import_worker(find_app(app_name))


def main(arguments: Sequence[str]) -> None:
    """Import the app, say how that went, serve; in a fork, be the node."""
    app_name, parent, orders_fd, reports_fd = arguments[:4]
    _die_with(int(parent))
    orders = socket.socket(fileno=int(orders_fd))
    reports = socket.socket(fileno=int(reports_fd))
    for end in (orders, reports):
        end.set_inheritable(False)
    try:
        with safety.reads_noted() as read:
            _load(app_name)
    except BaseException as error:
        traceback.print_exc()
        wire.send(reports, {"failed": f"{type(error).__name__}: {error}"[:500]})
        return
    gc.collect()
    gc.freeze()  # what is here now is never collected: a collection would copy its pages
    template = Template(orders, reports, read)
    wire.send(reports, {"ready": True})
    order = template.serve()
    if order is not None:
        become(order)


if __name__ == "__main__":
    main(sys.argv[1:])
