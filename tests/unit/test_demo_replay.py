"""The replay on a clock of our own, with a client whose inputs each run for their time."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import pytest

from celery_concurrent.autoscaler.replay import Arrival
from celery_concurrent.demo.errors import DemoError, StalledError
from celery_concurrent.demo.fleet import Fleet
from celery_concurrent.demo.measure import Ledger, Snapshot
from celery_concurrent.demo.replay import Result, replay

EPOCH = 1000.0


class FakeClient:
    """Runs inputs at once and without limit; ``lose`` of them never get a result."""

    def __init__(self, *, lose: int = 0, fail: bool = False, publishing: float = 0.0) -> None:
        self.now = EPOCH
        self.published: list[float] = []
        self._publishing = publishing
        self._lose = lose
        self._fail = fail
        self._ends: dict[str, tuple[float, float]] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        # A clock that stood still would let a loop that waits for nothing run for ever.
        self.now += max(seconds, 1e-6)

    def publish(self, arrival: Arrival) -> str:
        self.now += self._publishing
        self.published.append(self.now - EPOCH)
        name = f"input-{len(self.published)}"
        if len(self.published) > self._lose:
            self._ends[name] = (self.now, self.now + arrival.seconds)
        return name

    def results(self, input_ids: Collection[str]) -> dict[str, Result]:
        return {
            name: Result(error="boom") if self._fail else Result(node="n", started=start, ended=end)
            for name, (start, end) in self._ends.items()
            if name in input_ids and end <= self.now
        }


def arrivals(*at: float) -> list[Arrival]:
    return [Arrival(at=second, seconds=1.0) for second in at]


def run(client: FakeClient, given: list[Arrival], speed: float, **more: object) -> Ledger:
    options = {"show": lambda _: None, "check": lambda: None, "fleet": Fleet, **more}
    return replay(
        given,
        client,
        speed=speed,
        clock=client.clock,
        sleep=client.sleep,
        **options,  # type: ignore[arg-type]  # either callable, given by the test
    )


def test_inputs_are_published_when_they_arrived_sped_up() -> None:
    client = FakeClient()
    run(client, arrivals(0.0, 1.0, 1.0, 10.0), speed=4)
    assert client.published == pytest.approx([0.0, 0.25, 0.25, 2.5], abs=1e-3)


def test_replay_ends_when_each_input_has_its_result() -> None:
    client = FakeClient()
    ledger = run(client, arrivals(0.0, 3.0), speed=2)
    assert (ledger.finished, ledger.failed, ledger.outstanding) == (2, 0, {})
    assert [o.latency for o in ledger.outcomes] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert client.now - EPOCH == pytest.approx(2.5, abs=0.3)


def test_looks_go_on_while_nothing_arrives() -> None:
    client = FakeClient()
    shown: list[Snapshot] = []
    run(client, arrivals(0.0, 5.0), speed=1, show=shown.append)
    gaps = [b.elapsed - a.elapsed for a, b in pairwise(shown)]
    assert max(gaps) < 0.3
    assert shown[-1].finished == 2


def test_late_publishing_does_not_hold_up_the_looks() -> None:
    client = FakeClient(publishing=0.1)
    shown: list[Snapshot] = []
    ledger = run(client, arrivals(*[0.0] * 50), speed=1, show=shown.append)
    gaps = [after - before for before, after in pairwise([0.0, *(look.elapsed for look in shown)])]
    assert max(gaps) < 0.4
    assert ledger.latest_publishing == pytest.approx(5.0, abs=0.2)


def test_each_look_notes_the_fleet() -> None:
    client = FakeClient()
    ledger = run(client, arrivals(0.0), speed=1, fleet=lambda: Fleet(desired=3))
    assert {fleet.desired for _, fleet in ledger.looks} == {3}
    assert ledger.seconds == pytest.approx(1.0, abs=0.3)


def test_failed_inputs_are_counted_and_do_not_stop_the_replay() -> None:
    ledger = run(FakeClient(fail=True), arrivals(0.0, 0.0), speed=1)
    assert (ledger.finished, ledger.failed) == (2, 2)


def test_lost_inputs_end_the_replay_with_their_number() -> None:
    client = FakeClient(lose=2)
    with pytest.raises(StalledError, match="2 of 3 inputs have no result"):
        run(client, arrivals(0.0, 0.0, 0.0), speed=1)
    assert client.now - EPOCH < 30


def test_long_lull_in_the_trace_is_no_stall() -> None:
    ledger = run(FakeClient(), arrivals(0.0, 100.0), speed=1)
    assert ledger.finished == 2


def test_check_ends_the_replay_at_the_next_look() -> None:
    client = FakeClient()

    def check() -> None:
        if client.now > EPOCH + 3:
            raise DemoError("the node is gone")

    with pytest.raises(DemoError, match="the node is gone"):
        run(client, arrivals(0.0, 60.0), speed=1, check=check)
    assert client.now - EPOCH < 3.5
