"""The benchmark of real autoscalers, once and small: it measures what it says it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.fleet.live.idle import Idle
from benchmarks.fleet.live.model import Case, Line
from benchmarks.fleet.live.servers import Servers, servers
from benchmarks.fleet.live.starts import Starts
from benchmarks.fleet.live.ticks import Ticks

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("servers"), {"redis"}) as found:
        yield found


def by_what(lines: list[Line]) -> dict[str, float]:
    return {line.what: line.p99 for line in lines}


def test_a_start_is_timed_from_the_arrival_to_the_result(running: Servers) -> None:
    told: list[int] = []
    case = Case(row="start", broker="redis", busy=True, samples=1)
    lines = Starts().measure(case, running, told.append)
    found = by_what(lines)
    assert [len(line.values) for line in lines] == [1] * 4
    assert 0 < found["arrival to start decision"] < found["arrival to consuming node"]
    assert found["arrival to consuming node"] < found["arrival to first result"]
    assert found["decision to consuming node"] == pytest.approx(
        found["arrival to consuming node"] - found["arrival to start decision"], abs=0.001
    )
    assert told[-1] == 1


def test_an_idle_autoscaler_uses_a_part_of_a_core(running: Servers) -> None:
    case = Case(row="idle", broker="redis", queues=3, samples=1)
    lines = Idle(settle=0.2, window=1.0).measure(case, running, lambda _count: None)
    assert 0 < by_what(lines)["autoscaler"] < 100


def test_looks_are_timed_while_all_nodes_are_heard(running: Servers) -> None:
    row = Ticks(nodes=20, fleets=2, warm_up=0.5)
    (case,) = row.cases("redis", repeat=1, quick=True)
    lines = row.measure(replace(case, samples=2), running, lambda _count: None)
    found = by_what(lines)
    assert 0 < found["a look: CPU"] <= found["a look: wall"]
    # Each speaks every 0.9 s.
    assert 5 < found["events heard"] < 60
    assert 0 < found["looks"] <= 21
