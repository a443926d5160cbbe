"""Finding the nodes that an autoscaler before this one has left behind."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from celery_concurrent.autoscaler.local.processes import (
    Handle,
    Identity,
    boot,
    end_session,
)
from celery_concurrent.autoscaler.local.records import Record, Records

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A node that lives; ``handle`` is None while its process has not signed its record."""

    record: Record
    handle: Handle | None


def find(records: Records, known: Collection[str]) -> Iterator[Found]:
    """The living nodes that are not ``known``; the records of the dead are removed."""
    this_boot = boot()
    for record in records.all():
        if record.name in known:
            continue
        if record.boot != this_boot:
            records.remove(record.name)
            continue
        process = record.process
        if process is None:
            if records.is_locked(record.name):
                yield Found(record=record, handle=None)
                continue
            # In this order: it signs before it gives the lock back.
            signed = records.get(record.name)
            process = signed.process if signed is not None else None
        handle = Handle.of(process) if process is not None else None
        if handle is not None:
            yield Found(record=record, handle=handle)
        else:
            _bury(records, record, process)


def _bury(records: Records, record: Record, process: Identity | None) -> None:
    if process is None:
        logger.info("%s was never started", record.name)
    else:
        logger.info("%s ended while no autoscaler ran", record.name)
        end_session(process)
    records.remove(record.name)
