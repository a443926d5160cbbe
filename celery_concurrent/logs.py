"""Every log record made below an input carries ``input_id``, and the default format shows it."""

from __future__ import annotations

import logging
from typing import Any

from celery_concurrent.context import current_input_id
from celery_concurrent.inputlogs import InputLogs

#: Keeps the lines of inputs, in a node; empty in any other process.
_keepers: list[InputLogs] = []

#: Shown for a record that no input has made.
NONE = "-"

_FORMAT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
    "[%(asctime)s: %(levelname)s/%(processName)s %(input_id)s] %(message)s",
)
_TASK_FORMAT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
    "[%(asctime)s: %(levelname)s/%(processName)s %(input_id)s] %(task_name)s: %(message)s",
)


def install(app: Any) -> None:
    """Put ``input_id`` on all records of this process; a format that the user set stays."""
    _install_factory()
    for log_format, setting, (theirs, ours) in (
        ("format", "worker_log_format", _FORMAT),
        ("task_format", "worker_task_log_format", _TASK_FORMAT),
    ):
        if app.conf[setting] == theirs:
            app.conf[setting] = ours
            setattr(app.log, log_format, ours)


def keep(kept: InputLogs | None) -> None:
    """Have the lines of inputs kept from now on; None for nobody."""
    _keepers[:] = [] if kept is None else [kept]


def _install_factory() -> None:
    make = logging.getLogRecordFactory()
    if hasattr(make, "__adds_input_id__"):
        return

    def make_with_input_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        input_id = current_input_id()
        record.input_id = input_id or NONE
        if input_id is not None:
            for keeper in _keepers:
                keeper.keep(input_id, record)
        return record

    make_with_input_id.__adds_input_id__ = True  # type: ignore[attr-defined]  # read above
    logging.setLogRecordFactory(make_with_input_id)
