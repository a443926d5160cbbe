"""The rows of the table: what is measured, and how."""

from __future__ import annotations

from benchmarks.rows.base import Row
from benchmarks.rows.calls import Calls
from benchmarks.rows.memory import Memory
from benchmarks.rows.on_gpu import OnGpu
from benchmarks.rows.publish import Publish
from benchmarks.rows.refill import Refill
from benchmarks.rows.roundtrip import RoundTrip
from benchmarks.rows.throughput import GROWTH, NAP, NOOP

__all__ = ["ROWS", "Row"]

ROWS: tuple[Row, ...] = (
    NOOP,
    NAP,
    Refill(),
    RoundTrip(),
    Memory(name="memory-1k", inputs=1_000),
    Memory(name="memory-10k", inputs=10_000, in_quick=False),
    Publish(),
    Calls(),
    OnGpu(),
    *GROWTH,
)
