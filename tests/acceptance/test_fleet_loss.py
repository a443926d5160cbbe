"""Fleets that shrink, and autoscalers that are killed, lose no input and run none twice."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import load
from tests.services.fixtures import MakeProject
from tests.services.fleets import Fleets, Life, end_nodes, nodes_of, workers_of
from tests.services.load import ROUNDS, Load
from tests.services.project import Broker
from tests.services.waiting import wait_for

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.redis,
    pytest.mark.timeout(120 + 60 * ROUNDS),
]

#: Twenty inputs to a node, a device each; nothing is kept that is not needed.
KNOBS = ("--gpus", "1", "--scaledown-window", "0")
#: Each node writes down which device it is on.
PINNED = """
from celery.signals import worker_init

@worker_init.connect
def pinned(**_):
    with Path(__file__).with_suffix(".pins").open("a") as pins:
        pins.write(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
"""


@pytest.fixture
def inputs(celery_project: MakeProject, redis_broker: Broker) -> Iterator[Load]:
    """Inputs whose every run is on record."""
    made = Load(celery_project(load.source() + PINNED, broker=redis_broker))
    yield made
    end_nodes(made.project)


def test_scaling_down_under_inputs_loses_none_repeats_none_and_kills_no_node(
    inputs: Load,
) -> None:
    """Inputs end one by one, so nodes are drained while others of theirs run."""
    longest = 1.5 * ROUNDS
    under: list[int] = []
    fleets = Fleets(inputs.project, *KNOBS, "--simulate-gpus", "10")
    try:
        fleets.wait_until_ready()
        while len(under) < 2.5 * ROUNDS:
            publish_naps(inputs, 200, longest)
            inputs.wait_until_done(60.0 + longest)
            held = [held_when_drained(inputs, life) for life in fleets.lives().values()]
            under = [count for count in held if count]
        fleets.wait_for_status("naps", lambda s: s["nodes"] == [])
        lives = fleets.lives()
    finally:
        fleets.kill()
    at_work = {run.pid for runs in inputs.runs().values() for run in runs}
    # One that was not needed any more before it had loaded ends at once.
    unneeded = {life.pid for life in lives.values() if life.ended == "exit_code=-15 was=draining"}
    assert not unneeded & at_work
    ends = {life.ended for life in lives.values() if life.pid not in unneeded}
    assert ends == {"exit_code=0 was=draining"}
    assert not inputs.repeated()
    print(f"{len(under)} nodes were drained under {sum(under)} of {len(inputs.ids)} inputs")


def test_an_autoscaler_killed_as_it_starts_or_drains_nodes_leaves_them_to_the_next(
    inputs: Load,
) -> None:
    in_flight = []
    for _ in range(ROUNDS):
        fleets = taken_over(inputs)
        # Or the nodes that are left hold all devices, and none is started.
        inputs.wait_until_done(60.0)
        fleets.wait_for_status("naps", lambda s: s["nodes"] == [])
        began = time.time()
        publish_naps(inputs, 20, 5.0)
        inputs.wait_for_a_start(after=began)
        seen = len(fleets.log())
        publish_naps(inputs, 80, 5.0)
        in_flight.append(killed_while(fleets, r"(forked|started fresh) pid=", seen, inputs))
        fleets = taken_over(inputs)
        publish_naps(inputs, 40, 5.0)  # for a node beside those that were adopted
        in_flight.append(killed_while(fleets, r"node \S+ drains", 0, inputs))
    fleets = taken_over(inputs)
    inputs.wait_until_done(60.0)
    fleets.wait_for_status("naps", lambda s: s["nodes"] == [])
    fleets.signal(signal.SIGTERM)
    assert fleets.wait(30.0) == 0
    assert nodes_of(inputs.project) == []
    assert not inputs.repeated()
    print(f"{len(in_flight)} autoscalers were killed, over these inputs in flight: {in_flight}")
    assert all(in_flight[0::2])  # what started nodes did so because inputs ran


def taken_over(inputs: Load) -> Fleets:
    """The next autoscaler, once it knows every node: none is an orphan, none is pinned twice."""
    fleets = Fleets(inputs.project, *KNOBS, "--simulate-gpus", "6")
    fleets.wait_until_ready()
    seen: list[set[int]] = []

    def knows_all() -> bool:
        told = {node["pid"] for node in fleets.status("naps")["nodes"]}
        seen[:] = [told, set(workers_of(inputs.project))]
        return seen[0] == seen[1]

    wait_for(knows_all, 20.0, what=lambda: f"what it knows and what there is: {seen}")
    assert_no_device_twice(inputs)
    return fleets


def killed_while(fleets: Fleets, doing: str, seen: int, inputs: Load) -> int:
    """Kill an autoscaler as soon as it logs this; returns how many inputs are in flight.

    ``seen`` characters of its log are older.
    """
    wait_for(lambda: re.search(doing, fleets.log()[seen:]), 30.0, what=fleets.log_tail)
    time.sleep(random.uniform(0.0, 0.1))
    fleets.signal(signal.SIGKILL)
    fleets.wait()
    assert_no_device_twice(inputs)
    return len(inputs.runs()) - len(inputs.runs("end"))


def publish_naps(inputs: Load, count: int, longest: float) -> None:
    """Inputs that take from one second to ``longest``."""
    for _ in range(count):
        inputs.publish("nap", 1, random.uniform(1.0, longest))


def held_when_drained(inputs: Load, life: Life) -> int:
    """How many inputs the node ran when it was told to drain."""
    if life.drained_at is None:
        return 0
    ends = {id: runs[0].at for id, runs in inputs.runs("end").items()}
    starts = [runs[0] for runs in inputs.runs().values()]
    return sum(
        run.pid == life.pid and run.at < life.drained_at < ends.get(run.id, life.drained_at)
        for run in starts
    )


def assert_no_device_twice(inputs: Load) -> None:
    # In this order: what has started since lives on a device that one of these may have left.
    living = set(workers_of(inputs.project))
    pins = Path(inputs.project.folder / f"{inputs.project.name}.pins")
    if not living or not pins.exists():
        return
    lines = [line.split() for line in pins.read_text().splitlines()]
    devices = [device for pid, device in lines if int(pid) in living]
    assert len(devices) == len(set(devices)), lines
