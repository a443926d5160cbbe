"""Devices that are not there, and the file that changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celery_concurrent import ConfigurationError
from celery_concurrent.gpu.device import Device, Memory, Process
from celery_concurrent.gpu.simulated import STATE, Simulated, change


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "gpus.json"


def only(state: Path) -> Device:
    (device,) = Simulated(1, state=state).inventory().devices
    return device


def test_devices_are_healthy_and_empty_without_a_file(state: Path) -> None:
    found = Simulated(3, state=state).inventory()
    assert [device.uuid for device in found.devices] == [f"GPU-simulated-{n}" for n in range(3)]
    assert all(device.usable for device in found.devices)
    assert all(d.memory is not None and d.memory.free_share == 1.0 for d in found.devices)
    assert found.absence is None


def test_a_file_changes_devices_while_they_are_in_use(state: Path) -> None:
    source = Simulated(2, state=state)
    change(state, 1, memory_total=1000, memory_free=90, utilisation=70, processes=[11, 12])
    first, second = source.inventory().devices
    assert first.memory == Memory(total=24 * 1024**3, free=24 * 1024**3)
    assert second.memory == Memory(total=1000, free=90)
    assert second.utilisation == 70
    assert second.processes == (Process(pid=11), Process(pid=12))


def test_a_lost_device_keeps_its_uuid_and_comes_back(state: Path) -> None:
    change(state, 0, fault="GPU is lost", memory_free=0)
    lost = only(state)
    assert (lost.uuid, lost.fault, lost.usable) == ("GPU-simulated-0", "GPU is lost", False)
    assert lost.memory is None
    change(state, 0, fault=None)
    assert only(state).usable
    assert only(state).memory == Memory(total=24 * 1024**3, free=0)


def test_a_value_goes_back_to_its_default(state: Path) -> None:
    change(state, 0, memory_total=1000, utilisation=50, processes=[3])
    change(state, 0, memory_total=None, utilisation=None, processes=None)
    assert only(state) == Simulated(1).inventory().devices[0]


def test_the_environment_names_the_file(state: Path) -> None:
    change(state, 0, memory_free=5)
    for environ, free in (
        ({STATE: str(state)}, 5),
        ({}, 24 * 1024**3),
        ({STATE: ""}, 24 * 1024**3),
    ):
        (device,) = Simulated.of(1, environ).inventory().devices
        assert device.memory is not None
        assert device.memory.free == free


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"gpus\.json is no JSON"),
        ("[]", r"gpus\.json must hold an object"),
        ('{"0": 3}', r"device 0 in .*gpus\.json: 3 is not understood"),
        ('{"0": {"free": 3}}', r"device 0 in .*: 'free' is not understood.*memory_free"),
        ('{"0": {"memory_free": -3}}', r"device 0 in .*: free=-3 must lie in 0"),
        ('{"0": {"memory_free": "3"}}', r"device 0 in .*gpus\.json"),
    ],
)
def test_a_file_with_a_mistake_is_named_with_the_place(
    state: Path, text: str, message: str
) -> None:
    state.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        only(state)


def test_no_devices_are_simulated_by_zero() -> None:
    assert Simulated(0).inventory().absence == "0 GPUs are simulated"
    assert Simulated(0).inventory().devices == ()


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="simulate_gpus=-1"):
        Simulated(-1)


def test_readers_never_see_half_of_a_change(state: Path, monkeypatch: Any) -> None:
    change(state, 0, memory_free=5)
    seen: list[Device] = []
    write = Path.write_text

    def look_while_writing(path: Path, text: str) -> int:
        done = write(path, text[:3])
        seen.append(only(state))
        return done and write(path, text)

    monkeypatch.setattr(Path, "write_text", look_while_writing)
    change(state, 0, memory_free=6)
    assert [device.memory.free for device in (*seen, only(state)) if device.memory] == [5, 6]
