"""A driver that hangs, and who asks it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_concurrent.autoscaler.devices import PatientSource
from celery_concurrent.autoscaler.pins import FRESH, PATIENCE, DevicePins
from celery_concurrent.autoscaler.provider import PIN, NodeProcess, ProcessState
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet
from celery_concurrent.gpu.device import Device, Inventory, ReadingError
from celery_concurrent.knobs import Layer
from celery_concurrent.limits import Limits
from tests.services.waiting import wait_for

DEVICE = Device(index=0, uuid="GPU-0", name="Some GPU", driver="1.0")


class Driver:
    """Answers while it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.asked = 0
        self.error: Exception | None = None

    def inventory(self) -> Inventory:
        self.asked += 1
        assert self.may.wait(30)
        if self.error is not None:
            raise self.error
        return Inventory(devices=(DEVICE,))


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.may.set()


def test_what_the_source_tells_is_told(driver: Driver) -> None:
    source = PatientSource(driver, timeout=30)
    assert source.inventory().devices == (DEVICE,)
    driver.error = ConfigurationError("no such JSON")
    with pytest.raises(ConfigurationError, match="no such JSON"):
        source.inventory()


def test_a_driver_that_hangs_is_asked_once_and_said_once(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    source = PatientSource(driver, timeout=0.01)
    driver.may.clear()
    for _ in range(3):
        with pytest.raises(ReadingError, match="does not answer"):
            source.inventory()
    assert driver.asked == 1
    driver.may.set()
    wait_for(lambda: answer(source) == Inventory(devices=(DEVICE,)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def answer(source: PatientSource) -> Inventory | None:
    try:
        return source.inventory()
    except ReadingError:
        return None


def test_while_the_driver_hangs_no_node_starts_and_none_must_go(
    driver: Driver, tmp_path: Path
) -> None:
    now = 0.0
    source = PatientSource(driver, timeout=0.01)
    pins = DevicePins(source, owner="shop", folder=tmp_path, clock=lambda: now)
    layer = Layer.of("q", "the test", {"gpus": 1})
    fleet = Fleet(queue="q", tasks=("t",), limits=Limits(max_inputs=2), layers=(layer,))
    running = NodeProcess(
        name="n", queue="q", state=ProcessState.RUNNING, since=0.0, began=0.0, env={PIN: "GPU-0"}
    )

    def starts() -> bool:
        nonlocal now
        now += FRESH
        return bool(pins.environments(fleet, 1, [])[0])

    wait_for(starts)
    driver.may.clear()
    for _ in range(2 * PATIENCE):
        assert not starts()
        assert pins.lost(running) is None
    assert "1 not answering" in (pins.environments(fleet, 1, [])[1] or "")
    driver.may.set()
    wait_for(starts)
