"""Which devices a fleet's next nodes get, and which nodes must go with theirs.

The loop's thread alone touches this. A device is locked for autoscalers of other apps on this host
from before its first node starts until its last one has ended: each node holds the lock, too, so
that it keeps the device when this process is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from celery.utils.log import get_logger

from celery_concurrent.autoscaler.provider import NodeProcess, pinned
from celery_concurrent.fleets import Fleet
from celery_concurrent.gpu.device import Device, DeviceSource, Inventory, ReadingError
from celery_concurrent.gpu.locks import (
    DeviceLock,
    DeviceTakenError,
    LockFolderError,
    LockRemovedError,
)
from celery_concurrent.gpu.pin import Holdings, Need, Pin, Shares, seats, share

logger = get_logger(__name__)

#: Seconds for which an inventory counts: what is read then is no older.
FRESH = 2.0

#: So many readings in a row without a device, or with a fault that may pass, and its nodes go.
PATIENCE = 5


class DevicePins:
    """Shares the devices of this host out.

    Args:
        source: tells what there is; None where no fleet wants devices.
        owner: whose the devices are, for this autoscaler and the next one of the same app.
        folder: where the locks are; the user's own place when None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        source: DeviceSource | None,
        *,
        owner: str,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._owner = owner
        self._folder = folder
        self._clock = clock
        self._locks: dict[str, DeviceLock] = {}
        #: By device that cannot be held: why, as it was said last.
        self._refused: dict[str, str] = {}
        self._read_at = -FRESH
        self._inventory = Inventory()
        self._readings = 0
        #: By device: the last reading in which it was sound.
        self._sound: dict[str, int] = {}

    def inventory(self) -> Inventory:
        """What this host has, read a moment ago at the most."""
        if self._source is not None and self._clock() - self._read_at >= FRESH:
            try:
                self._inventory = self._counted(self._source.inventory())
            except ReadingError as error:
                self._inventory = _untold(self._inventory, str(error))
            self._read_at = self._clock()
        return self._inventory

    def environments(
        self, fleet: Fleet, count: int, nodes: Iterable[NodeProcess]
    ) -> tuple[list[dict[str, str]], str | None]:
        """The environments of the nodes that fit, and what the others lack."""
        knobs = fleet.knobs
        if not knobs.gpus:
            return [{} for _ in range(count)], None
        need = Need(gpus=knobs.gpus, nodes_per_gpu=knobs.nodes_per_gpu)
        living = list(nodes)
        own = [node for node in living if node.queue == fleet.queue]
        taken = {device for node in living if node.queue != fleet.queue for device in node.devices}
        refusals: dict[str, Exception] = {}
        shares = self._share(count, need, own, taken, refusals)
        missing = shares.missing
        if missing is not None:
            missing = "; ".join([missing, *dict.fromkeys(map(str, refusals.values()))])
        return [pin.environment for pin in shares.pins], missing

    def descriptors(self, env: Mapping[str, str]) -> dict[str, int]:
        """The locks that a node with this environment is to keep until its end, by device."""
        return {uuid: self._locks[uuid].fileno() for uuid in pinned(env) if uuid in self._locks}

    def lost(self, process: NodeProcess) -> str | None:
        """Why the node cannot go on; None when it can, or nobody knows."""
        if not process.devices:
            return None
        devices = {device.uuid: device for device in self.inventory().devices}
        if not devices:
            return None
        faults = {uuid: self._fault(uuid, devices.get(uuid)) for uuid in process.devices}
        return ", ".join(f"device {uuid}: {why}" for uuid, why in faults.items() if why) or None

    def _counted(self, inventory: Inventory) -> Inventory:
        if inventory.devices:
            self._readings += 1
        sound = [device.uuid for device in inventory.devices if device.fault is None]
        self._sound |= dict.fromkeys(sound, self._readings)
        return inventory

    def _fault(self, uuid: str, device: Device | None) -> str | None:
        """Why nodes must leave the device, which is None when it was not found.

        A drain is not taken back, and a call to the driver may fail once: only what lasts counts.
        """
        if device is not None and (device.fault is None or device.lost):
            return device.fault
        if self._readings - self._sound.get(uuid, 0) < PATIENCE:
            return None
        # One that was lost before this process began has no UUID by which it could be known.
        return "is not among this host's devices" if device is None else device.fault

    def let_go(self, nodes: Iterable[NodeProcess]) -> None:
        """Leave the devices to others that none of these nodes, all that live, are on."""
        used = {device for node in nodes for device in node.devices}
        for uuid in self._locks.keys() - used:
            self._locks.pop(uuid).release()

    def close(self) -> None:
        """Let go of all devices; a node that lives on keeps its own."""
        self.let_go([])

    def _share(
        self,
        count: int,
        need: Need,
        own: list[NodeProcess],
        taken: set[str],
        refusals: dict[str, Exception],
    ) -> Shares:
        """Share out and lock; what cannot be locked is noted and left, so look again."""
        seated = seats(Pin(devices=node.devices) for node in own)
        while True:
            held = {uuid for uuid, why in refusals.items() if isinstance(why, DeviceTakenError)}
            holdings = Holdings(seats=seated, taken=taken | held, unlockable=refusals.keys() - held)
            shares = share(self.inventory().devices, nodes=count, need=need, holdings=holdings)
            refused = self._lock(seats(shares.pins))
            if not refused:
                return shares
            refusals |= refused

    def _lock(self, devices: Iterable[str]) -> dict[str, Exception]:
        """Hold these devices; returns those that cannot be held, and why, for people."""
        refused: dict[str, Exception] = {}
        for uuid in devices:
            try:
                if uuid not in self._locks:
                    self._locks[uuid] = self._taken(uuid)
                self._locks[uuid].check()
            except (DeviceTakenError, LockFolderError, LockRemovedError, OSError) as error:
                refused[uuid] = error
                if self._refused.get(uuid) != str(error):
                    logger.warning("%s", error)
                self._refused[uuid] = str(error)
            else:
                self._refused.pop(uuid, None)
        return refused

    def _taken(self, uuid: str) -> DeviceLock:
        try:
            return DeviceLock.take(uuid, owner=self._owner, folder=self._folder)
        except OSError as error:
            raise OSError(f"device {uuid} cannot be locked: {error}") from error


def _untold(inventory: Inventory, why: str) -> Inventory:
    """The devices as they were last, with a fault: nobody can say how they are."""
    found = [device if device.fault else replace(device, fault=why) for device in inventory.devices]
    return replace(inventory, devices=tuple(found))
