"""Devices that are not there, for demos and tests: what ``--simulate-gpus N`` gives.

A small JSON file changes them while they are in use. It maps a device's index to what is to
differ from a healthy, empty one::

    {"0": {"memory_free": 1000000000}, "2": {"fault": "GPU is lost"}}

Nodes find the file by the environment, as autoscaler and commands do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.gpu.device import Device, Inventory, Memory, Process, Reading, ReadingError

#: Names the JSON file.
STATE = "CELERY_CONCURRENT_SIMULATED_GPUS"
#: What their UUIDs begin with; the index follows.
UUID = "GPU-simulated-"
_MEMORY = 24 * 1024**3
_DEFAULTS: Mapping[str, Any] = {
    "memory_total": _MEMORY,
    "memory_free": None,
    "utilisation": 0,
    "processes": (),
    "fault": None,
}


class Simulated:
    """``count`` devices, read anew from the file ``state`` for each inventory.

    They are healthy and empty, and stay so without a file. Their UUIDs, ``GPU-simulated-0``
    and on, are no device of CUDA's: a node that is pinned to one sees no GPU at all.

    Raises:
        ConfigurationError: count is below zero.
    """

    def __init__(self, count: int, *, state: Path | None = None) -> None:
        if count < 0:
            raise ConfigurationError(f"simulate_gpus={count!r} must be 0 or more")
        self._count = count
        self._state = state

    @classmethod
    def of(cls, count: int, environ: Mapping[str, str] = os.environ) -> Simulated:
        """As many devices, with the file that the environment names, if it does."""
        path = environ.get(STATE, "")
        return cls(count, state=Path(path) if path else None)

    def inventory(self) -> Inventory:
        """All of them as the file has them now.

        Raises:
            ConfigurationError: the file is no such JSON; the message names it and the place.
        """
        if self._count == 0:
            return Inventory(absence="0 GPUs are simulated")
        changes = _read(self._state)
        return Inventory(
            devices=tuple(
                self._device(index, changes.get(str(index), {})) for index in range(self._count)
            )
        )

    def _device(self, index: int, changed: object) -> Device:
        where = f"device {index} in {self._state}"
        if not isinstance(changed, dict) or (unknown := set(changed) - set(_DEFAULTS)):
            wrong = changed if not isinstance(changed, dict) else ", ".join(sorted(unknown))
            raise ConfigurationError(
                f"{where}: {wrong!r} is not understood. Write an object with some of "
                f"{', '.join(_DEFAULTS)}"
            )
        values = {**_DEFAULTS, **changed}
        common: dict[str, Any] = {
            "index": index,
            "uuid": f"{UUID}{index}",
            "name": "Simulated GPU",
            "driver": "simulated",
        }
        if values["fault"] is not None:
            # A lost device tells nothing of itself.
            return Device(**common, fault=str(values["fault"]), lost=True)
        try:
            return Device(**common, **_readings(values))
        except (ConfigurationError, TypeError) as error:
            raise ConfigurationError(f"{where}: {error}") from error


class SimulatedReadings:
    """Reads simulated devices, as a node reads its own.

    Args:
        uuids: theirs.
        environ: may name the file.

    Raises:
        ConfigurationError: a UUID is of no simulated device.
    """

    def __init__(self, uuids: Iterable[str], environ: Mapping[str, str] = os.environ) -> None:
        self._uuids = tuple(uuids)
        indices = [uuid.removeprefix(UUID) for uuid in self._uuids]
        if not all(index.isdecimal() for index in indices):
            raise ConfigurationError(f"{self._uuids!r} must be simulated devices, as {UUID}0")
        self._devices = Simulated.of(1 + max(map(int, indices), default=-1), environ)

    def read(self) -> dict[str, Reading]:
        """By UUID, as the file has them now.

        Raises:
            ReadingError: one of them is lost.
            ConfigurationError: the file cannot be understood.
        """
        found = {device.uuid: device for device in self._devices.inventory().devices}
        for uuid in self._uuids:
            if found[uuid].lost:
                raise ReadingError(f"device {uuid}: {found[uuid].fault}")
        return {
            uuid: Reading(
                name=found[uuid].name,
                memory=found[uuid].memory,
                utilisation=found[uuid].utilisation,
            )
            for uuid in self._uuids
        }

    def close(self) -> None:
        """Nothing is held."""


def change(state: Path, index: int, **values: Any) -> None:
    """Set values of one device in the file, which is made if it is not there.

    ``None`` takes a value back to its default, ``fault=None`` a lost device back to life.
    Readers see the old file or the new one. One writer at a time.
    """
    known = _read(state)
    device = {**known.get(str(index), {}), **values}
    known[str(index)] = {name: value for name, value in device.items() if value is not None}
    written = state.with_name(f"{state.name}.{os.getpid()}.new")
    written.write_text(json.dumps(known))
    written.replace(state)


def _read(state: Path | None) -> dict[str, Any]:
    if state is None:
        return {}
    try:
        known = json.loads(state.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{state} is no JSON: {error}") from error
    if not isinstance(known, dict):
        raise ConfigurationError(f'{state} must hold an object, as in {{"0": {{}}}}')
    return known


def _readings(values: Mapping[str, Any]) -> dict[str, Any]:
    total, free = values["memory_total"], values["memory_free"]
    return {
        "memory": Memory(total=total, free=total if free is None else free),
        "utilisation": values["utilisation"],
        "processes": tuple(Process(pid=pid) for pid in values["processes"]),
    }
