"""What a host's GPUs are: frozen data, whoever has read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from celery_concurrent.errors import ConcurrencyError, ConfigurationError


class ReadingError(ConcurrencyError, RuntimeError):
    """A device does not answer, or nobody here can ask it; the message says why.

    Look at ``celery gpus``: it tells the same of the whole host.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A device's memory in bytes at one instant.

    Raises:
        ConfigurationError: total is not above zero, or free does not lie in 0..total.
    """

    total: int
    free: int

    def __post_init__(self) -> None:
        if self.total <= 0:
            raise ConfigurationError(f"total={self.total!r} must be above zero: bytes of memory")
        if not 0 <= self.free <= self.total:
            raise ConfigurationError(f"free={self.free!r} must lie in 0..total={self.total}")

    @property
    def free_share(self) -> float:
        """What is free of the whole, 0.0 to 1.0."""
        return self.free / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that computes on a device.

    Args:
        pid: as the host counts, which in a container is not what ``ps`` shows there.
        memory: bytes it uses on the device; None when the driver does not tell.
    """

    pid: int
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or a MIG slice of one, as it was last read.

    Args:
        index: the driver's number of the GPU; of a slice, its place in its GPU.
        uuid: ``GPU-...`` or ``MIG-...``. A device that was lost before it could be
            identified has ``unknown-<index>``, which names nothing to CUDA.
        name: the product's name.
        driver: the driver's version.
        memory: None when the driver cannot tell.
        utilisation: percent of the last moments in which it computed; None when the driver
            cannot tell, as for slices.
        processes: what computes on it, ours and others'; None when the driver cannot tell.
        parent: of a slice, the uuid of its GPU.
        sliced: a GPU in MIG mode, which computes through its slices only.
        fault: why it cannot be used, in the driver's words; None for a healthy device.
        lost: the driver has given it up: nodes on it must go. Any other fault may pass.
    """

    index: int
    uuid: str
    name: str
    driver: str
    memory: Memory | None = None
    utilisation: int | None = None
    processes: tuple[Process, ...] | None = None
    parent: str | None = None
    sliced: bool = False
    fault: str | None = None
    lost: bool = False

    @property
    def usable(self) -> bool:
        """Whether a node can be pinned to it."""
        return self.fault is None and not self.sliced


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a host has at one instant.

    Args:
        devices: in the driver's order; a GPU's slices follow it.
        absence: why there are none, with the remedy; None when the driver answers.
    """

    devices: tuple[Device, ...] = ()
    absence: str | None = None


class DeviceSource(Protocol):
    """Where inventories come from: the driver, or a simulation."""

    def inventory(self) -> Inventory:
        """What is there now. A host without GPUs, or with faulty ones, is no error.

        Raises:
            ReadingError: nobody answers, so nothing is known.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a node wants to know of a device of its own, over and over.

    Args:
        name: the product's name; None when the driver cannot tell.
        memory: None when the driver cannot tell.
        utilisation: as of a device; None when the driver cannot tell.
    """

    name: str | None = None
    memory: Memory | None = None
    utilisation: int | None = None


class ReadingSource(Protocol):
    """Where a few devices are read, over and over; for one thread at a time."""

    def read(self) -> Mapping[str, Reading]:
        """By UUID.

        Raises:
            ConcurrencyError: one of them does not answer.
        """

    def close(self) -> None:
        """Let go of the driver. Idempotent; the next reading opens it again."""
