"""What NVIDIA's driver tells of its devices; the only module that imports ``pynvml``.

Three kinds of error are kept apart, by the call that met them. When the library cannot be
opened, this host has no GPU support, which is said once and is no error. When a reading that
can be done without is not given (utilisation of a slice, an old driver), its field is None.
When a device cannot be reached, that device has a fault, and the others go on; it is lost when
the driver says so, for any other error may pass.

NVML does not look at CUDA_VISIBLE_DEVICES: it sees every device of the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from celery.utils.log import get_logger

from celery_concurrent.gpu.device import Device, Inventory, Memory, Process, Reading, ReadingError

try:
    import pynvml
except ModuleNotFoundError:  # the extra `gpu` is not installed: nothing but a GPU is missing
    pynvml = None

logger = get_logger(__name__)
Told = TypeVar("Told")

# NVML's codes, by number: pynvml may be missing, and an old one has no name for a new code.
_NO_PERMISSION = 4
_NOT_FOUND = 6
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_VERSION_MISMATCH = 18
_UNKNOWN = 999
_LOST = frozenset({15, 16})  # GPU is lost; GPU must be reset

_REMEDIES = {
    _LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 is not here. Install NVIDIA's driver; a container gets it from its "
        "host (docker run --gpus all)"
    ),
    _DRIVER_NOT_LOADED: "the driver is not loaded. Load it (modprobe nvidia) and look at dmesg",
    _NO_PERMISSION: "this user may not open the devices. Look at the rights of /dev/nvidia*",
    _VERSION_MISMATCH: (
        "the driver's library and its kernel module have different versions, as after an "
        "upgrade. Reboot, or load the module again"
    ),
    _UNKNOWN: "the driver does not say why. Look at nvidia-smi and dmesg",
}
_NO_BINDINGS = 'nvidia-ml-py is not installed: pip install "celery-concurrent[gpu]"'


class Nvml:
    """Reads the driver's devices, over and over; for one thread at a time.

    It remembers what it saw, so that a faulty device keeps its UUID, and logs changes only.
    """

    def __init__(self) -> None:
        self._driver = _Driver()
        self._seen: dict[int, tuple[Device, ...]] = {}
        self._absence: str | None = None

    def inventory(self) -> Inventory:
        """All GPUs and MIG slices as they are now.

        Devices that were there before and that a driver's failure hides now have a fault, and
        are not gone.
        """
        if pynvml is None:
            return self._absent(_NO_BINDINGS)
        try:
            self._driver.ensure_open()
            driver = pynvml.nvmlSystemGetDriverVersion()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self.close()
            if not self._seen:
                return self._absent(_remedy(error))
            return self._told({index: self._faulty(index, error, "") for index in self._seen})
        self._absence = None
        return self._told({index: self._gpu(index, driver) for index in range(count)})

    def close(self) -> None:
        """Let go of the driver. Idempotent; the next inventory opens it again."""
        self._driver.close()

    def _absent(self, reason: str) -> Inventory:
        if reason != self._absence:
            self._absence = reason
            logger.info("no GPU support here: %s", reason)
        return Inventory(absence=reason)

    def _told(self, found: dict[int, tuple[Device, ...]]) -> Inventory:
        faults = {device.uuid: device.fault for device in _flat(self._seen)}
        for device in _flat(found):
            if device.fault == faults.get(device.uuid):
                continue
            if device.fault is None:
                logger.warning("device %s is back", device.uuid)
            else:
                state = "is lost" if device.lost else "does not answer"
                logger.warning("device %s %s: %s", device.uuid, state, device.fault)
        self._seen = found
        return Inventory(devices=tuple(_flat(found)))

    def _gpu(self, index: int, driver: str) -> tuple[Device, ...]:
        """The GPU and its slices; when it cannot be reached, as they were last, with a fault."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpu = _device(handle, index=index, driver=driver)
            slots = _slots(handle)
            if slots is None:
                return (gpu,)
            return (replace(gpu, sliced=True), *self._slices(handle, gpu, slots))
        except pynvml.NVMLError as error:
            return self._faulty(index, error, driver)

    def _slices(self, handle: Any, gpu: Device, slots: int) -> Iterator[Device]:
        for slot in range(slots):
            try:
                slice_handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
            except pynvml.NVMLError as error:
                if error.value == _NOT_FOUND:  # no slice was cut for this slot
                    continue
                raise
            found = _device(slice_handle, index=slot, driver=gpu.driver)
            yield replace(found, parent=gpu.uuid)

    def _faulty(self, index: int, error: Any, driver: str) -> tuple[Device, ...]:
        unknown = Device(index=index, uuid=f"unknown-{index}", name="unknown", driver=driver)
        untold: dict[str, Any] = {"memory": None, "utilisation": None, "processes": None}
        return tuple(
            replace(device, **untold, fault=_words(error), lost=error.value in _LOST)
            for device in self._seen.get(index, (unknown,))
        )


class NvmlReadings:
    """Reads what a node wants to know of its devices; for one thread at a time.

    That is four calls for each, where an inventory takes some eight for each device of the host.

    Args:
        uuids: whole ones, of GPUs and MIG slices.
    """

    def __init__(self, uuids: Iterable[str]) -> None:
        self._uuids = tuple(uuids)
        self._driver = _Driver()

    def read(self) -> dict[str, Reading]:
        """By UUID; without what a device does not have, or cannot tell.

        Raises:
            ReadingError: there is no driver, or one of the devices does not answer.
        """
        if pynvml is None:
            raise ReadingError(_NO_BINDINGS)
        try:
            self._driver.ensure_open()
        except pynvml.NVMLError as error:
            raise ReadingError(_remedy(error)) from error
        return {uuid: self._reading(uuid) for uuid in self._uuids}

    def close(self) -> None:
        """Let go of the driver. Idempotent; the next reading opens it again."""
        self._driver.close()

    def _reading(self, uuid: str) -> Reading:
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return Reading(
                name=_if_told(pynvml.nvmlDeviceGetName, handle),
                memory=_if_told(_memory, handle),
                utilisation=_if_told(_utilisation, handle),
            )
        except pynvml.NVMLError as error:
            self.close()  # a driver that was loaded anew wants to be opened anew
            raise ReadingError(f"device {uuid}: {_words(error)}") from error


class _Driver:
    """The driver's library, open or not."""

    def __init__(self) -> None:
        self._open = False

    def ensure_open(self) -> None:
        if not self._open:
            pynvml.nvmlInit()
            self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                logger.debug("NVML did not shut down: %s", error)


def inventory() -> Inventory:
    """What this host has now, by a reader that this process shares; from any thread."""
    with _shared_lock:
        return _shared().inventory()


_shared_lock = threading.Lock()


@cache
def _shared() -> Nvml:
    return Nvml()


def _device(handle: Any, *, index: int, driver: str) -> Device:
    # Without name and UUID there is no device; the rest can be done without.
    return Device(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        driver=driver,
        memory=_if_told(_memory, handle),
        utilisation=_if_told(_utilisation, handle),
        processes=_if_told(_processes, handle),
    )


def _if_told(read: Callable[[Any], Told], handle: Any) -> Told | None:
    """A reading that can be done without. That its device is lost is told on."""
    try:
        return read(handle)
    except pynvml.NVMLError as error:
        if error.value in _LOST:
            raise
        return None


def _memory(handle: Any) -> Memory | None:
    # The second version leaves out what the driver keeps for itself; older drivers have the
    # first only. Both know the same total and free.
    newer = _if_told(_memory_of_version_2, handle)
    told = newer if newer is not None else pynvml.nvmlDeviceGetMemoryInfo(handle)
    # A total of zero is how some integrated GPUs say that they have no memory of their own.
    return Memory(total=told.total, free=min(told.free, told.total)) if told.total > 0 else None


def _memory_of_version_2(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def _utilisation(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _processes(handle: Any) -> tuple[Process, ...]:
    newer = _if_told(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    told = newer if newer is not None else pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)
    return tuple(Process(pid=one.pid, memory=one.usedGpuMemory) for one in told)


def _slots(handle: Any) -> int | None:
    """How many slices it may have; None for a GPU that is not in MIG mode."""
    mode = _if_told(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or not mode[0]:
        return None
    return int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))


def _flat(found: dict[int, tuple[Device, ...]]) -> Iterator[Device]:
    for devices in found.values():
        yield from devices


def _remedy(error: Any) -> str:
    return _REMEDIES.get(error.value, _words(error))


def _words(error: Any) -> str:
    return f"{error} (NVML error {error.value})"
