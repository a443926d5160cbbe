"""The words at the end of the demo: what was measured, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from celery_concurrent.demo.measure import Ledger, percentile, seconds
from celery_concurrent.limits import Limits


def fixed_size(ledger: Ledger) -> int:
    """The nodes of a fixed fleet that costs as much, or up to a node more: rounded up."""
    return max(1, math.ceil(ledger.node_seconds / ledger.seconds)) if ledger.seconds else 1


def problems(ledger: Ledger, limits: Limits) -> list[str]:
    """What should not be: inputs lost or failed, a limit that did not hold."""
    found = []
    missing = ledger.total - ledger.finished
    if missing:
        found.append(f"{missing} of {ledger.total} inputs have no result")
    if ledger.failed:
        first = next(outcome.error for outcome in ledger.outcomes if outcome.error is not None)
        found.append(f"{ledger.failed} of {ledger.total} inputs failed; the first: {first}")
    if ledger.busiest > limits.max_inputs:
        found.append(
            f"{ledger.busiest} inputs ran at once in a node, more than "
            f"max_inputs={limits.max_inputs}"
        )
    return found


def summary(autoscaled: Ledger, fixed: Ledger, limits: Limits, found: Sequence[str]) -> str:
    """Some lines of text: both runs side by side, how they were got, the problems or none."""
    columns = zip(_NAMES, _column(autoscaled), _column(fixed), strict=True)
    rows = [("", "autoscaled", "fixed"), *columns]
    table = [f"  {name:<16} {left:>12} {right:>12}".rstrip() for name, left, right in rows]
    mean = autoscaled.node_seconds / autoscaled.seconds if autoscaled.seconds else 0.0
    late = max(autoscaled.latest_publishing, fixed.latest_publishing) * 1000
    busiest = max(autoscaled.busiest, fixed.busiest)
    finished, total = autoscaled.finished + fixed.finished, autoscaled.total + fixed.total
    told = [
        ("measured", "all of the above, each fleet in a replay of its own"),
        (
            "computed",
            f"the fixed fleet's size: {autoscaled.node_seconds:.1f} node-seconds / "
            f"{autoscaled.seconds:.1f} s = {mean:.2f}, rounded up",
        ),
        ("inputs at once", f"{busiest} in a node at most, max_inputs={limits.max_inputs}"),
        (
            "arrivals",
            f"published at most {late:.0f} ms late; waits count from the publishing",
        ),
    ]
    told += [("problem", text) for text in found] or [
        ("results", f"{finished:,} of {total:,}: none lost, none failed")
    ]
    return "\n".join([*table, "", *(f"  {name:<16} {text}" for name, text in told)])


_NAMES = (
    "nodes",
    "node-seconds",
    "wait, mean",
    "wait p50",
    "wait p95",
    "wait p99",
    "latency p99",
    "duration",
)


def _column(ledger: Ledger) -> tuple[str, ...]:
    fewest, most = ledger.fewest_and_most_nodes
    waits = ledger.waits
    return (
        f"{fewest}" if fewest == most else f"{fewest} to {most}",
        f"{ledger.node_seconds:.1f}",
        seconds(sum(waits) / len(waits) if waits else None),
        *(seconds(percentile(waits, share)) for share in (0.5, 0.95, 0.99)),
        seconds(percentile(ledger.latencies, 0.99)),
        f"{ledger.seconds:.1f} s",
    )
