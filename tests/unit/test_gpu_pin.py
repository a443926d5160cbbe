"""Which node gets which devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from celery_concurrent import ConfigurationError
from celery_concurrent.gpu.device import Device, Memory
from celery_concurrent.gpu.pin import Holdings, Need, Pin, Shares, seats, share


def gpu(index: int, **changed: Any) -> Device:
    device = Device(index=index, uuid=f"GPU-{index}", name="Some GPU", driver="1.0")
    return replace(device, **changed)


def mig(index: int, parent: str = "GPU-0") -> Device:
    return gpu(index, uuid=f"MIG-{index}", parent=parent)


FOUR = [gpu(index) for index in range(4)]
SLICED = [gpu(0, sliced=True), mig(0), mig(1), gpu(1), gpu(2)]


def given(shares: Shares) -> list[tuple[str, ...]]:
    return [pin.devices for pin in shares.pins]


def test_each_node_gets_a_whole_device_in_the_inventorys_order() -> None:
    shares = share(FOUR, nodes=3, need=Need())
    assert given(shares) == [("GPU-0",), ("GPU-1",), ("GPU-2",)]
    assert shares.missing is None


def test_eight_nodes_on_four_devices_are_two_on_each() -> None:
    shares = share(FOUR, nodes=8, need=Need(nodes_per_gpu=2))
    assert seats(shares.pins) == {f"GPU-{index}": 2 for index in range(4)}
    assert shares.missing is None


def test_a_node_may_have_several_devices() -> None:
    shares = share(FOUR, nodes=2, need=Need(gpus=2))
    assert given(shares) == [("GPU-0", "GPU-1"), ("GPU-2", "GPU-3")]


def test_a_device_that_has_nodes_is_filled_before_another_is_opened() -> None:
    held = Holdings(seats={"GPU-2": 1, "GPU-0": 2})
    shares = share(FOUR, nodes=3, need=Need(nodes_per_gpu=2), holdings=held)
    assert given(shares) == [("GPU-2",), ("GPU-1",), ("GPU-1",)]


def test_what_others_have_taken_is_not_given_out() -> None:
    held = Holdings(taken={"GPU-0", "GPU-2"})
    assert given(share(FOUR, nodes=2, need=Need(), holdings=held)) == [("GPU-1",), ("GPU-3",)]
    assert given(share(FOUR, nodes=1, need=Need(gpus=2), holdings=held)) == [("GPU-1", "GPU-3")]


def test_a_device_with_a_node_is_no_part_of_a_group() -> None:
    held = Holdings(seats={"GPU-1": 1})
    shares = share(FOUR, nodes=2, need=Need(gpus=2), holdings=held)
    assert given(shares) == [("GPU-0", "GPU-2")]
    assert shares.missing is not None


def test_a_lost_device_gets_no_node() -> None:
    devices = [gpu(0, fault="GPU is lost", lost=True), gpu(1)]
    shares = share(devices, nodes=2, need=Need())
    assert given(shares) == [("GPU-1",)]
    assert shares.missing == (
        "2 more nodes want a device each, 1 fit: this host has 2 devices: 1 lost, 1 free"
    )


def test_a_device_that_does_not_answer_gets_no_node_either() -> None:
    shares = share([gpu(0, fault="Unknown Error"), gpu(1)], nodes=2, need=Need())
    assert given(shares) == [("GPU-1",)]
    assert "1 not answering, 1 free" in (shares.missing or "")


def test_slices_are_given_one_to_a_node_and_their_gpu_to_none() -> None:
    shares = share(SLICED, nodes=4, need=Need())
    assert given(shares) == [("MIG-0",), ("MIG-1",), ("GPU-1",), ("GPU-2",)]


def test_a_node_of_several_devices_gets_no_slice() -> None:
    shares = share(SLICED, nodes=2, need=Need(gpus=2))
    assert given(shares) == [("GPU-1", "GPU-2")]
    assert shares.missing is not None
    assert "2 devices each, 1 fit" in shares.missing
    assert "2 MIG slices, of which a process sees only one" in shares.missing
    assert "1 divided into MIG slices" in shares.missing


def test_what_fits_is_given_and_the_rest_explained() -> None:
    held = Holdings(seats={"GPU-0": 1}, taken={"GPU-3"})
    shares = share(FOUR, nodes=5, need=Need(), holdings=held)
    assert given(shares) == [("GPU-1",), ("GPU-2",)]
    assert shares.missing == (
        "5 more nodes want a device each, 2 fit: this host has 4 devices: "
        "1 used by this fleet, 2 free, 1 taken by others"
    )


def test_a_host_without_devices_says_so() -> None:
    shares = share([], nodes=2, need=Need(nodes_per_gpu=3))
    assert shares == Shares(
        pins=(), missing="2 more nodes want nodes_per_gpu=3, 0 fit: this host has no device"
    )


def test_nobody_asks_for_nothing() -> None:
    assert share([], nodes=0, need=Need()) == Shares(pins=())


def test_a_device_with_more_nodes_than_are_allowed_now_gets_no_more() -> None:
    held = Holdings(seats={"GPU-0": 4})
    assert given(share(FOUR[:1], nodes=1, need=Need(nodes_per_gpu=2), holdings=held)) == []


def test_the_environment_names_devices_by_uuid() -> None:
    assert Pin(devices=("GPU-a", "GPU-b")).environment == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
    }


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1"])
@pytest.mark.parametrize("name", ["gpus", "nodes_per_gpu"])
def test_a_wrong_need_is_named_with_its_remedy(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}={value!r} must be an int.*Leave"):
        Need(**{name: value})


def test_several_devices_and_sharing_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="gpus=2 and nodes_per_gpu=3 cannot both"):
        Need(gpus=2, nodes_per_gpu=3)


@pytest.mark.parametrize(("total", "free"), [(0, 0), (-1, 0), (10, 11), (10, -1)])
def test_memory_that_cannot_be_is_refused(total: int, free: int) -> None:
    with pytest.raises(ConfigurationError, match=r"must (be above zero|lie in 0)"):
        Memory(total=total, free=free)
