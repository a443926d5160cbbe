"""When an input was sent: a header that publishers of concurrent tasks add.

Brokers do not tell how long an input has waited in a queue, and nothing that Celery sends says
it: a node tells of it by this header. Publishers that do not import the app's tasks, and so know
of none that is concurrent, send no header, and their inputs' waits are not counted.
"""

from __future__ import annotations

import time
from typing import Any, Final

from celery import signals

#: The header: seconds since the epoch, by the publisher's clock.
SENT_AT: Final = "concurrent_sent_at"

#: The names of concurrent tasks that this process knows.
_names: set[str] = set()
#: This package's own receivers of the signal.
_ours: set[Any] = set()


def tell_of(name: str) -> None:
    """Inputs of the task with this name are to have the header."""
    _names.add(name)


def stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Add the header, if it is an input of a concurrent task; a receiver of the signal."""
    if headers is not None and headers.get("task") in _names:
        headers[SENT_AT] = time.time()


def has_other_receivers(signal: Any, sender: str) -> bool:
    """Whether anybody but this package wants to see what is published (Celery 5.6 and 5.7)."""
    return any(receiver not in _ours for receiver in signal._live_receivers(sender))


def listen(receiver: Any, *, uid: str) -> None:
    """Connect a receiver of this package: one that adds the same to all inputs of a call."""
    _ours.add(receiver)
    signals.before_task_publish.connect(receiver, weak=False, dispatch_uid=uid)


listen(stamp, uid="celery-concurrent-sent-at")
