"""A registry's collector over a board and a tally.

What is unknown has no sample: an unknown backlog is not an empty one. There are as many series as
there are queues, tasks and devices, however many nodes there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from celery_concurrent.board import Board
from celery_concurrent.metrics.catalogue import CATALOGUE, PREFIX, About
from celery_concurrent.metrics.tally import Tally
from celery_concurrent.metrics.telling import label_of
from celery_concurrent.metrics.totals import Histogram

#: States of a fleet; "unkept" is one without an autoscaler.
FLEET_STATES: Final = ("ok", "short", "held", "drained", "failing", "unkept")

_FAMILIES: Final = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


def register(
    board: Board, tally: Tally, registry: CollectorRegistry = prometheus_client.REGISTRY
) -> Collector:
    """Have a registry expose what these two know; returns what ``unregister`` takes.

    Raises:
        ValueError: the registry exposes others already.
    """
    collector = FleetCollector(board, tally)
    registry.register(collector)
    return collector


class FleetCollector(Collector):
    """Collects; any thread may ask.

    Args:
        board: knows fleets and devices as they are.
        tally: knows what has been counted.
    """

    def __init__(self, board: Board, tally: Tally) -> None:
        self._board = board
        self._tally = tally

    def describe(self) -> Iterable[Metric]:
        """All metrics, without values."""
        return [_family(about) for about in CATALOGUE]

    def collect(self) -> Iterator[Metric]:
        """Those metrics that have values."""
        families, nodes = _Families(), self._board.nodes()
        autoscalers, sums = self._board.autoscalers(), _by_queue(nodes)
        # Of several, each keeps nodes of its own: one that is silent is missed.
        missed = {queue for each in autoscalers if each["silent"] for queue in each["queues"]}
        for fleet in self._board.fleets():
            if fleet["kept"]:
                is_up = not fleet["silent"] and fleet["queue"] not in missed
                families.add("fleet_autoscaler_up", (fleet["queue"],), int(is_up))
            _add_fleet(families, fleet, sums[fleet["queue"]])
        for queue, totals in self._tally.queues().items():
            families.add("fleet_idle_slot_seconds_total", (queue,), totals.idle)
            for cause, count in totals.decisions.items():
                families.add("fleet_decisions_total", (queue, cause), count)
            families.add_histogram("node_startup_seconds", queue, totals.startup)
        for task, counted in self._tally.tasks().items():
            families.add_histogram("task_wait_seconds", task, counted.wait)
            families.add_histogram("task_run_seconds", task, counted.run)
            for outcome, count in counted.outcomes.items():
                families.add("task_outcomes_total", (task, outcome), count)
        for labels, device in _devices(autoscalers, nodes).items():
            _add_device(families, labels, device)
        return families.with_samples()


class _Families:
    """The metrics of one scrape; of two samples with the same labels, the first one stays."""

    def __init__(self) -> None:
        self._by_name = {about.name: _family(about) for about in CATALOGUE}
        self._seen: set[tuple[str, ...]] = set()

    def add(self, name: str, labels: Iterable[str], value: float | None) -> None:
        """Add a sample; None is none."""
        shown = [label_of(label) for label in labels]
        if value is not None and self._is_new(name, shown):
            self._by_name[name].add_metric(shown, value)

    def add_histogram(self, name: str, label: str, histogram: Histogram) -> None:
        """Add a histogram with one label."""
        shown = [label_of(label)]
        if not self._is_new(name, shown):
            return
        bounds = [*map(repr, histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        self._by_name[name].add_metric(shown, buckets, histogram.sum)

    def with_samples(self) -> Iterator[Metric]:
        """Those that have any."""
        return (family for family in self._by_name.values() if family.samples)

    def _is_new(self, name: str, labels: list[str]) -> bool:
        key = (name, *labels)
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def _family(about: About) -> Any:
    return _FAMILIES[about.kind](PREFIX + about.name, about.text, labels=about.labels)


@dataclass(slots=True)
class _Nodes:
    """What the nodes of a queue come to; None while none of them tells."""

    slots: int = 0
    cpu: float | None = None
    memory: int | None = None


def _by_queue(nodes: Iterable[Mapping[str, Any]]) -> Mapping[str, _Nodes]:
    found: dict[str, _Nodes] = defaultdict(_Nodes)
    for node in nodes:
        if node["silent"]:
            continue
        for queue in node["queues"]:
            sums = found[queue]
            if node["state"] == "ready":
                sums.slots += node["slots"] or 0
            if node["cpu"] is not None:
                sums.cpu = (sums.cpu or 0.0) + node["cpu"]
            if node["rss"] is not None:
                sums.memory = (sums.memory or 0) + node["rss"]
    return found


def _add_fleet(families: _Families, fleet: Mapping[str, Any], nodes: _Nodes) -> None:
    queue = (fleet["queue"],)
    families.add("fleet_slots", queue, nodes.slots)
    families.add("fleet_cpu_cores", queue, nodes.cpu)
    families.add("fleet_memory_bytes", queue, nodes.memory)
    if fleet["silent"]:
        # What it said last is no longer so.
        return
    for name in ("demand", "backlog", "reserved", "running", "target_inputs", "max_inputs"):
        families.add(f"fleet_{name}", queue, fleet[name])
    for state, count in fleet["counts"].items():
        families.add("fleet_nodes", (*queue, state), count)
    for state in FLEET_STATES:
        families.add("fleet_state", (*queue, state), 1 if fleet["state"] == state else 0)
    if fleet["kept"]:
        families.add("fleet_desired_nodes", queue, fleet["desired"])
        families.add("fleet_crashes", queue, fleet["crashes"])
        families.add("fleet_min_nodes", queue, fleet["min_nodes"])
        families.add("fleet_max_nodes", queue, fleet["max_nodes"])


def _devices(
    autoscalers: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By host, UUID and name: as autoscalers see them, or else as nodes do that are on them."""
    devices: dict[tuple[str, str], dict[str, Any]] = {}
    for speaker in (*autoscalers, *nodes):
        if speaker["silent"]:
            continue
        for told in speaker["devices"]:
            known = devices.setdefault((speaker["host"], told["uuid"]), {})
            for name, value in told.items():
                if known.get(name) is None:
                    known[name] = value
    return {(*key, device.get("name") or ""): device for key, device in devices.items()}


def _add_device(families: _Families, labels: tuple[str, ...], device: Mapping[str, Any]) -> None:
    families.add("device_up", labels, 1 if device.get("fault") is None else 0)
    families.add("device_memory_free_bytes", labels, device["free"])
    families.add("device_memory_total_bytes", labels, device["total"])
    used = device["utilisation"]
    if used is not None and 0 <= used <= 100:
        families.add("device_utilisation_ratio", labels, used / 100)
