"""Devices that are shared out, locked, refused, lost and let go; the locks are real ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from celery_concurrent.autoscaler.pins import FRESH, DevicePins
from celery_concurrent.autoscaler.provider import PIN, NodeProcess, ProcessState
from celery_concurrent.fleets import Fleet
from celery_concurrent.gpu import simulated
from celery_concurrent.gpu.device import Device, Inventory
from celery_concurrent.gpu.locks import DeviceLock, DeviceTakenError
from celery_concurrent.gpu.simulated import Simulated
from celery_concurrent.knobs import Layer
from celery_concurrent.limits import Limits

A, B = "GPU-simulated-0", "GPU-simulated-1"


class World:
    """A host with two devices, and the autoscaler of ``shop`` on it."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.folder = folder
        self.state = folder / "gpus.json"
        self.pins = self.autoscaler("shop")

    def autoscaler(self, owner: str) -> DevicePins:
        source = Simulated(2, state=self.state)
        return DevicePins(source, owner=owner, folder=self.folder, clock=lambda: self.now)

    def change(self, index: int, fault: str | None) -> None:
        simulated.change(self.state, index, fault=fault)
        self.now += FRESH

    def is_free(self, device: str) -> bool:
        try:
            DeviceLock.take(device, owner="other", folder=self.folder).release()
        except DeviceTakenError:
            return False
        return True


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def fleet(**knobs: int) -> Fleet:
    return Fleet(
        queue="q",
        tasks=("shop.q",),
        limits=Limits(max_inputs=2),
        layers=(Layer.of("q", "the test", {"gpus": 1, **knobs}),),
    )


def node(*devices: str) -> NodeProcess:
    return NodeProcess(
        name=f"q-{devices}",
        queue="q",
        state=ProcessState.RUNNING,
        since=0.0,
        began=0.0,
        env={PIN: ",".join(devices)},
    )


def test_a_node_gets_a_device_and_its_lock_until_no_node_is_on_it(world: World) -> None:
    (first,), missing = world.pins.environments(fleet(), 1, [])
    assert (first[PIN], missing) == (A, None)
    assert list(world.pins.descriptors(first)) == [A]
    assert (world.is_free(A), world.is_free(B)) == (False, True)
    world.pins.let_go([node(A)])
    assert not world.is_free(A)
    world.pins.let_go([])
    assert world.is_free(A)
    assert world.pins.descriptors(first) == {}


def test_a_fleet_without_devices_locks_none(world: World) -> None:
    assert world.pins.environments(fleet(gpus=0), 2, []) == ([{}, {}], None)
    assert world.pins.descriptors({}) == {}


def test_what_another_app_holds_is_left_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with DeviceLock.take(A, owner="rival", folder=world.folder):
        for _ in range(2):
            (first,), missing = world.pins.environments(fleet(), 2, [])
            assert first[PIN] == B
            assert missing is not None
            assert "1 taken by others" in missing
            assert f"device {A} is taken by process" in missing
            assert "of rival" in missing
    assert len(caplog.records) == 1, "said once"
    assert len(world.pins.environments(fleet(), 2, [])[0]) == 2


def test_a_device_whose_lock_cannot_be_had_is_missing(tmp_path: Path) -> None:
    pins = DevicePins(Simulated(1), owner="shop", folder=tmp_path / "gone")
    environments, missing = pins.environments(fleet(), 1, [])
    assert environments == []
    assert "1 without its lock" in (missing or "")
    assert f"device {A} cannot be locked: [Errno 2] No such file" in (missing or "")


def test_no_node_starts_beside_others_whose_lock_was_removed(world: World) -> None:
    world.pins.environments(fleet(nodes_per_gpu=2), 1, [])
    (lock,) = world.folder.glob("*.lock")
    lock.unlink()
    environments, missing = world.pins.environments(fleet(nodes_per_gpu=2), 3, [node(A)])
    assert [env[PIN] for env in environments] == [B, B]
    assert f"no longer at {lock}" in (missing or "")
    world.pins.let_go([node(B)])
    assert len(world.pins.environments(fleet(nodes_per_gpu=2), 3, [node(B)])[0]) == 3


def test_the_next_autoscaler_of_the_app_puts_nodes_beside_those_that_it_adopted(
    world: World,
) -> None:
    world.pins.environments(fleet(nodes_per_gpu=2), 1, [])
    following = world.autoscaler("shop")
    (env,), _ = following.environments(fleet(nodes_per_gpu=2), 1, [node(A)])
    assert env[PIN] == A
    world.pins.close()
    assert not world.is_free(A)


class Told:
    """Devices as a test tells them."""

    def __init__(self) -> None:
        self.found: dict[str, str | None] = {A: None, B: None}

    def inventory(self) -> Inventory:
        return Inventory(
            devices=tuple(
                Device(index=index, uuid=uuid, name="Some GPU", driver="1.0", fault=fault)
                for index, (uuid, fault) in enumerate(self.found.items())
            )
        )


def followed(source: Told, folder: Path) -> Callable[[], str | None]:
    """Why a node on A must go, at one reading after the other."""
    now = itertools.count(step=FRESH)
    pins = DevicePins(source, owner="shop", folder=folder, clock=lambda: next(now))
    return lambda: pins.lost(node(A))


def test_a_device_that_does_not_answer_once_keeps_its_nodes(tmp_path: Path) -> None:
    source = Told()
    lost = followed(source, tmp_path)
    for answers in (*[True] * 9, *[False] * 4, True, *[False] * 4):
        source.found[A] = None if answers else "Unknown Error"
        assert lost() is None
    assert lost() == f"device {A}: Unknown Error"
    source.found[A] = None
    assert lost() is None


def test_a_device_that_is_not_found_for_long_is_no_place_to_stay(tmp_path: Path) -> None:
    """As for a node that was adopted: nobody has seen its device sound."""
    source = Told()
    lost = followed(source, tmp_path)
    source.found = {}
    assert [lost() for _ in range(10)] == [None] * 10, "nothing is known while nothing is found"
    source.found = {B: None}
    assert [lost() for _ in range(4)] == [None] * 4
    assert lost() == f"device {A}: is not among this host's devices"


def test_a_device_that_is_lost_is_no_place_to_stay(world: World) -> None:
    assert world.pins.lost(node(A, B)) is None
    world.change(0, "fell off the bus")
    assert world.pins.lost(node(A, B)) == f"device {A}: fell off the bus"
    assert world.pins.lost(node(B)) is None
    assert world.pins.lost(node()) is None
    (env,), missing = world.pins.environments(fleet(), 2, [])
    assert env[PIN] == B
    assert "1 lost" in (missing or "")


def test_where_devices_are_not_read_none_is_lost(tmp_path: Path) -> None:
    assert DevicePins(None, owner="shop", folder=tmp_path).lost(node(A)) is None
