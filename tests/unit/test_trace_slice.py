"""The slice of a trace that the demo ships."""

from __future__ import annotations

from importlib.resources import files

from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.replay import Arrival, Engine
from celery_concurrent.autoscaler.simulate import simulate
from celery_concurrent.demo.app import LIMITS, MAX_NODES, MIN_NODES
from celery_concurrent.demo.trace import shipped_trace

SPEED = 12


def test_slice_is_what_its_notice_says() -> None:
    arrivals = shipped_trace()
    assert len(arrivals) == 1903
    assert arrivals[0] == Arrival(at=0.0, seconds=1.324)
    assert [a.at for a in arrivals] == sorted(a.at for a in arrivals)


def test_slice_at_the_default_speed_can_be_replayed_twice_in_under_two_minutes() -> None:
    ends = [a.at / SPEED + a.seconds for a in shipped_trace()]
    assert 40 < max(ends) < 50


def test_slice_brings_as_many_nodes_as_there_may_be_and_has_lulls_for_one() -> None:
    arrivals = [Arrival(at=a.at / SPEED, seconds=a.seconds) for a in shipped_trace()]
    engine = Engine(target=LIMITS.target, max_inputs=LIMITS.max_inputs, cold_start=1, slowdown=0)
    policy = Hold(target=LIMITS.target, min_nodes=MIN_NODES, max_nodes=MAX_NODES, window=1.5)
    sizes = [step.ready for step in simulate(policy, arrivals, engine).steps]
    highest = sizes.index(MAX_NODES)
    lull = sizes.index(MIN_NODES, highest)
    assert MAX_NODES in sizes[lull:]


def test_slice_travels_with_its_attribution() -> None:
    notice = files("celery_concurrent.demo").joinpath("NOTICE.md").read_text(encoding="utf-8")
    for word in ("CC-BY-4.0", "Splitwise", "ISCA 2024", "AzurePublicDataset", "Changes"):
        assert word in notice
