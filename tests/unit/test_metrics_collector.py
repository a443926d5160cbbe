"""What a registry exposes of a board and a tally, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from celery_concurrent.board import Board
from celery_concurrent.metrics.catalogue import CATALOGUE, PREFIX
from celery_concurrent.metrics.collector import register
from celery_concurrent.metrics.tally import Tally
from tests.unit.test_metrics_tally import Clock, fleet, said, timing

HOSTILE = 'a"b\\c\nd{e="f"} <script>\x00\r\u2028#'


class Exposed:
    """A registry with a board and a tally, fed and read."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.board, self.tally = Board(clock=self.clock), Tally(clock=self.clock)
        self.registry = CollectorRegistry(auto_describe=True)
        self.collector: Collector = register(self.board, self.tally, self.registry)
        self.clock.now += 60.0

    def note(self, *events: Mapping[str, Any]) -> None:
        for event in events:
            self.board.note(event)
            self.tally.note(event)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                yield sample.name.removeprefix(PREFIX), sample.labels, sample.value

    def value(self, metric: str, /, **labels: str) -> float | None:
        found = [value for name, told, value in self.samples() if (name, told) == (metric, labels)]
        assert len(found) <= 1
        return found[0] if found else None

    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples()}


@pytest.fixture
def exposed() -> Exposed:
    return Exposed()


def kept(**fields: Any) -> dict[str, Any]:
    """An autoscaler's word of a fleet with all its fields."""
    return fleet(
        {"demand": 2},
        state="short",
        target_inputs=8,
        max_inputs=10,
        knobs={"min_nodes": 1, "max_nodes": 4, "policy": "hold", "price": 3.0},
        demand=25,
        backlog=12,
        reserved=3,
        running=10,
        desired=3,
        counts={"starting": 1, "ready": 2, "draining": 0},
        crashes=1,
        nodes=[],
        **fields,
    )


def device(**fields: Any) -> dict[str, Any]:
    told = {"name": "H100", "free": 10, "total": 80, "utilisation": 25}
    return {**told, **fields}


def autoscaler(*devices: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "type": "concurrency-autoscaler",
        "hostname": "autoscaler@host",
        "host": "host",
        "pid": 3,
        "queues": ["q"],
        "devices": list(devices),
        **fields,
    }


def test_a_fleet_is_exposed_with_all_its_figures(exposed: Exposed) -> None:
    exposed.note(kept(), said(2, wait=1), said(1, name="b@host", slots=6))
    for name, value in {
        "fleet_demand": 25,
        "fleet_backlog": 12,
        "fleet_reserved": 3,
        "fleet_running": 10,
        "fleet_slots": 16,
        "fleet_target_inputs": 8,
        "fleet_max_inputs": 10,
        "fleet_desired_nodes": 3,
        "fleet_min_nodes": 1,
        "fleet_max_nodes": 4,
        "fleet_crashes": 1,
        "fleet_autoscaler_up": 1,
        "fleet_idle_slot_seconds_total": 0,
        "node_startup_seconds_count": 2,
    }.items():
        assert exposed.value(name, queue="q") == value, name
    for state, value in {"starting": 1, "ready": 2, "draining": 0}.items():
        assert exposed.value("fleet_nodes", queue="q", state=state) == value
    for state in ("ok", "short", "held", "drained", "failing", "unkept"):
        assert exposed.value("fleet_state", queue="q", state=state) == (state == "short")
    assert exposed.value("fleet_decisions_total", queue="q", cause="demand") == 2
    assert exposed.value("fleet_decisions_total", queue="q", cause="knobs") == 0


def test_histograms_are_cumulative_and_have_sums_and_counts(exposed: Exposed) -> None:
    event = said(2)
    event["timing"]["t"]["run"] = [1, 0, 2, *[0] * 12, 4]
    event["timing"]["t"]["run_sum"] = 9000.5
    event["outcomes"] = {"t": {"succeeded": 5, "retried": 2}}
    exposed.note(event)
    buckets = {
        labels["le"]: value
        for name, labels, value in exposed.samples()
        if name == "task_run_seconds_bucket"
    }
    assert list(buckets)[:3] == ["0.005", "0.01", "0.025"]
    assert [*buckets.values()] == [1, 1, 3, *[3] * 12, 7]
    assert (buckets["1800.0"], buckets["+Inf"]) == (3, 7)
    assert exposed.value("task_run_seconds_count", task="t") == 7
    assert exposed.value("task_run_seconds_sum", task="t") == 9000.5
    assert exposed.value("task_outcomes_total", task="t", outcome="retried") == 2


def test_what_is_unknown_has_no_sample(exposed: Exposed) -> None:
    exposed.note({**kept(), "demand": None, "backlog": None, "state": "held"})
    assert exposed.value("fleet_running", queue="q") == 10
    assert exposed.value("fleet_state", queue="q", state="held") == 1
    assert not {"fleet_demand", "fleet_backlog", "fleet_cpu_cores"} & exposed.names()


def test_an_autoscaler_that_is_silent_is_missed_though_another_host_has_one(
    exposed: Exposed,
) -> None:
    here, there = (
        (kept(hostname=name), autoscaler(hostname=name))
        for name in ("autoscaler@host", "autoscaler@other")
    )
    exposed.note(*here, *there)
    assert exposed.value("fleet_autoscaler_up", queue="q") == 1
    exposed.clock.now += 16.0
    exposed.note(*here)
    assert exposed.value("fleet_autoscaler_up", queue="q") == 0
    assert exposed.value("fleet_desired_nodes", queue="q") == 3
    exposed.clock.now += 300.0
    exposed.note(*here)
    assert exposed.value("fleet_autoscaler_up", queue="q") == 1


def test_limits_are_those_of_the_autoscalers_of_all_hosts(exposed: Exposed) -> None:
    exposed.note(kept(), kept(hostname="autoscaler@other"))
    for name, value in {"min": 2, "max": 8, "desired": 6}.items():
        assert exposed.value(f"fleet_{name}_nodes", queue="q") == value
    exposed.note({**kept(hostname="autoscaler@other"), "knobs": {}})
    assert "fleet_max_nodes" not in exposed.names()


def test_what_silent_nodes_said_last_is_not_exposed(exposed: Exposed) -> None:
    exposed.note(said(2))
    assert exposed.value("fleet_running", queue="q") == 4
    exposed.clock.now += 10.0
    assert exposed.value("fleet_slots", queue="q") == 0
    assert not {"fleet_running", "fleet_nodes", "fleet_state"} & exposed.names()


def test_what_a_silent_autoscaler_said_last_is_not_exposed(exposed: Exposed) -> None:
    exposed.note(kept())
    exposed.clock.now += 16.0
    exposed.note(said(1))
    assert exposed.value("fleet_autoscaler_up", queue="q") == 0
    assert exposed.value("fleet_slots", queue="q") == 10
    gone = {"fleet_demand", "fleet_backlog", "fleet_running", "fleet_nodes", "fleet_desired_nodes"}
    assert not gone & exposed.names()


def test_nodes_without_an_autoscaler_are_a_fleet_without_decisions(exposed: Exposed) -> None:
    exposed.note(said(1))
    assert exposed.value("fleet_nodes", queue="q", state="ready") == 1
    assert exposed.value("fleet_state", queue="q", state="unkept") == 1
    assert exposed.value("fleet_running", queue="q") == 4
    assert not {"fleet_demand", "fleet_desired_nodes", "fleet_autoscaler_up"} & exposed.names()


def test_processor_time_and_memory_are_those_of_all_nodes(exposed: Exposed) -> None:
    for second in range(3):
        for name in ("a@host", "b@host"):
            exposed.note(said(name=name, age=3.0 + second, cpu=0.5 * second, rss=1000))
        exposed.clock.now += 1.0
    assert exposed.value("fleet_cpu_cores", queue="q") == pytest.approx(1.0)
    assert exposed.value("fleet_memory_bytes", queue="q") == 2000


def test_slots_are_those_of_ready_nodes_that_speak(exposed: Exposed) -> None:
    exposed.note(said(name="silent@host", slots=1, devices={"GPU-1": device()}))
    exposed.clock.now += 6.0
    exposed.note(
        said(slots=2),
        said(name="b@host", slots=4, state="starting"),
        said(name="c@host", slots=8, state="draining"),
    )
    assert exposed.value("fleet_slots", queue="q") == 2
    assert "device_memory_free_bytes" not in exposed.names()


@pytest.mark.parametrize("utilisation", [-1, 101, 2**62])
def test_a_utilisation_that_is_none_has_no_sample(exposed: Exposed, utilisation: int) -> None:
    exposed.note(said(devices={"GPU-1": device(utilisation=utilisation)}))
    assert "device_memory_free_bytes" in exposed.names()
    assert "device_utilisation_ratio" not in exposed.names()


def test_devices_are_exposed_once_whoever_tells_of_them(exposed: Exposed) -> None:
    exposed.note(
        autoscaler({"uuid": "GPU-1", "fault": None, **device(free=20)}),
        said(devices={"GPU-1": device(), "GPU-2": device(name=None, utilisation=None)}),
    )
    first, second = ({"host": "host", "device": f"GPU-{n}", "name": name} for n, name in _NAMES)
    assert exposed.value("device_memory_free_bytes", **first) == 20
    assert exposed.value("device_memory_total_bytes", **first) == 80
    assert exposed.value("device_utilisation_ratio", **first) == 0.25
    assert exposed.value("device_up", **first) == 1
    assert exposed.value("device_memory_free_bytes", **second) == 10
    assert exposed.value("device_utilisation_ratio", **second) is None


_NAMES = ((1, "H100"), (2, ""))


def test_a_lost_device_is_not_up_and_its_figures_are_unknown(exposed: Exposed) -> None:
    lost = {"uuid": "GPU-1", "name": "H100", "free": None, "total": None, "fault": "lost"}
    exposed.note(autoscaler(lost))
    labels = {"host": "host", "device": "GPU-1", "name": "H100"}
    assert exposed.value("device_up", **labels) == 0
    assert "device_memory_free_bytes" not in exposed.names()


def test_names_that_would_break_a_line_are_escaped(exposed: Exposed) -> None:
    exposed.note(
        {**kept(), "queue": HOSTILE, "tasks": [HOSTILE], "decided": {HOSTILE: 1}},
        said(1, task=HOSTILE, queues=[HOSTILE], name="a@" + HOSTILE),
        autoscaler({"uuid": HOSTILE, "fault": None, **device(name=HOSTILE)}, host=HOSTILE),
    )
    shown = 'a"b\\c\ufffdd{e="f"} <script>\ufffd\ufffd\ufffd#'
    assert exposed.value("fleet_demand", queue=shown) == 25
    assert exposed.value("task_run_seconds_count", task=shown) == 1
    assert exposed.value("fleet_decisions_total", queue=shown, cause=shown) == 1
    assert exposed.value("device_up", host=shown, device=shown, name=shown) == 1


def test_names_that_look_the_same_are_one_series(exposed: Exposed) -> None:
    exposed.note(*(fleet({}, queue=f"q{end}", running=3) for end in ("\x00", "\x01")))
    exposed.note(
        *(said(2, name=f"{end}@h", task=f"t{ord(end)}\x00"[:1] + end) for end in "\x00\x01")
    )
    assert exposed.value("fleet_running", queue="q\ufffd") == 3
    assert exposed.value("task_run_seconds_count", task="t\ufffd") == 4


def test_every_metric_is_described_and_exposed_under_the_name_that_it_has(
    exposed: Exposed,
) -> None:
    exposed.note(kept(), autoscaler({"uuid": "GPU-1", "fault": None, **device()}))
    for age in (3.0, 4.0):
        exposed.note(said(1, age=age, cpu=age, rss=1000))
        exposed.clock.now += 1.0
    seen: dict[str, set[str]] = {}
    for name, labels, _ in exposed.samples():
        seen.setdefault(name, set()).update(labels)
    expected: dict[str, set[str]] = {}
    for about in CATALOGUE:
        if about.kind != "histogram":
            expected[about.name] = set(about.labels)
            continue
        expected[f"{about.name}_bucket"] = {*about.labels, "le"}
        expected[f"{about.name}_sum"] = expected[f"{about.name}_count"] = set(about.labels)
    assert seen == expected
    described = {metric.name for metric in exposed.collector.describe()}  # type: ignore[attr-defined]  # a Collector's protocol has collect only
    assert described == {PREFIX + about.name.removesuffix("_total") for about in CATALOGUE}


def test_openmetrics_can_be_read_too(exposed: Exposed) -> None:
    exposed.note(kept(), said(3), autoscaler({"uuid": "GPU-1", "fault": None, **device()}))
    # Neither of the two has types.
    text: bytes = exposition.generate_latest(exposed.registry)  # type: ignore[no-untyped-call]
    read = parser.text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
    assert PREFIX + "task_run_seconds" in {family.name for family in read}


def test_a_registry_takes_one_and_another_when_it_has_left(exposed: Exposed) -> None:
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        register(exposed.board, exposed.tally, exposed.registry)
    exposed.registry.unregister(exposed.collector)
    register(exposed.board, exposed.tally, exposed.registry)


def test_a_thousand_nodes_are_no_more_series_than_one(exposed: Exposed) -> None:
    exposed.note(said(1, devices=None))
    few = len([*exposed.samples()])
    for number in range(1000):
        exposed.note(said(1, name=f"n{number}@host{number % 10}", age=0.5))
    assert len([*exposed.samples()]) == few
    assert exposed.value("task_run_seconds_count", task="t") == 1001
    assert exposed.value("fleet_nodes", queue="q", state="ready") == 1001


def test_figures_of_anybody_break_no_scrape(exposed: Exposed) -> None:
    values: tuple[Any, ...] = (10**300, -1, "x", [], {}, True, 1e308)
    for value in values:
        exposed.note(
            {**kept(), "knobs": {"max_nodes": value}, "demand": value, "counts": value},
            said(cpu=value, rss=value, slots=value, devices={"GPU-1": device(utilisation=value)}),
            said(timing={"t": {**timing(1), "run_sum": value}}),
            autoscaler({"uuid": "GPU-1", "utilisation": value, "free": value}),
        )
        exposed.clock.now += 1.0
        assert exposed.value("fleet_running", queue="q") == 10
