"""The recorded arrivals that the demo replays."""

from __future__ import annotations

from importlib.resources import files

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.autoscaler.traces import parse_trace


def shipped_trace() -> tuple[Arrival, ...]:
    """The slice beside this module; NOTICE.md tells its origin and licence."""
    text = files(__package__).joinpath("trace.csv").read_text(encoding="utf-8")
    return parse_trace(text.splitlines(), name="the demo's trace")
