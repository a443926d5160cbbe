"""Which node gets which devices: pure, from an inventory and what is taken.

A node is pinned by the environment it starts in, by UUID: indexes change with the order of the
bus and with what else is hidden, UUIDs do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.gpu.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The devices of one node, by UUID."""

    devices: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What must stand in the node's environment before anything there touches CUDA."""
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(self.devices),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What each node of a fleet wants.

    Args:
        gpus: whole devices for each node, 1 or more. MIG slices serve nodes with one only, for
            CUDA shows a process no second slice.
        nodes_per_gpu: how many nodes share one device, 1 or more; above 1 only with gpus=1.

    Raises:
        ConfigurationError: a value is no int, out of range, or both are above 1.
    """

    gpus: int = 1
    nodes_per_gpu: int = 1

    def __post_init__(self) -> None:
        for name, value in (("gpus", self.gpus), ("nodes_per_gpu", self.nodes_per_gpu)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"{name}={value!r} must be an int, 1 or more. Leave gpus out for nodes "
                    "that need no device"
                )
        if self.gpus > 1 and self.nodes_per_gpu > 1:
            raise ConfigurationError(
                f"gpus={self.gpus} and nodes_per_gpu={self.nodes_per_gpu} cannot both be above "
                "1: a node either has several devices or shares one. Leave one of them out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What fits.

    Args:
        pins: one for each node that fits, in the order in which to start them.
        missing: what the others lack, for people; None when all fit.
    """

    pins: tuple[Pin, ...]
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What may not be given out again.

    Args:
        seats: by UUID, how many nodes of this fleet sit on a device.
        taken: devices of other fleets and of other processes.
        unlockable: devices that cannot be locked, though nobody is known to hold them.
    """

    seats: Mapping[str, int] = field(default_factory=dict)
    taken: Collection[str] = frozenset()
    unlockable: Collection[str] = frozenset()

    def bars(self, uuid: str) -> bool:
        """Whether no node may be put on the device."""
        return uuid in self.taken or uuid in self.unlockable


def share(
    devices: Sequence[Device], *, nodes: int, need: Need, holdings: Holdings | None = None
) -> Shares:
    """Find devices for ``nodes`` more nodes of a fleet.

    Nodes that share fill one device before they open the next, so that whole devices stay
    free for other fleets; otherwise devices go in the inventory's order. What does not fit is
    left out, and ``missing`` says why.
    """
    held = Holdings() if holdings is None else holdings
    groups = _shared(devices, need, held) if need.gpus == 1 else _several(devices, need, held)
    pins = tuple(Pin(devices=group) for _, group in zip(range(nodes), groups, strict=False))
    if len(pins) == nodes:
        return Shares(pins=pins)
    return Shares(pins=pins, missing=_missing(devices, nodes, len(pins), need, held))


def seats(pins: Iterable[Pin]) -> dict[str, int]:
    """How many of these pins are on each device, by UUID."""
    return dict(Counter(device for pin in pins for device in pin.devices))


def _shared(devices: Sequence[Device], need: Need, held: Holdings) -> Iterator[tuple[str, ...]]:
    """Seats on single devices, those that have nodes already first."""
    fits = [device.uuid for device in devices if device.usable and not held.bars(device.uuid)]
    for uuid in sorted(fits, key=lambda uuid: held.seats.get(uuid, 0), reverse=True):
        for _ in range(need.nodes_per_gpu - held.seats.get(uuid, 0)):
            yield (uuid,)


def _several(devices: Sequence[Device], need: Need, held: Holdings) -> Iterator[tuple[str, ...]]:
    """Groups of whole devices that nobody uses."""
    free = [
        device.uuid
        for device in devices
        if device.usable
        and device.parent is None
        and not held.bars(device.uuid)
        and not held.seats.get(device.uuid, 0)
    ]
    for start in range(0, len(free) - need.gpus + 1, need.gpus):
        yield tuple(free[start : start + need.gpus])


def _missing(
    devices: Sequence[Device], nodes: int, fitting: int, need: Need, held: Holdings
) -> str:
    """One line: what was wanted, what fits, and where every device went."""
    each = (
        f"{need.gpus} devices each"
        if need.gpus > 1
        else f"nodes_per_gpu={need.nodes_per_gpu}"
        if need.nodes_per_gpu > 1
        else "a device each"
    )
    reasons = Counter(_reason(device, need, held) for device in devices)
    went = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    there = f"{len(devices)} devices: {went}" if devices else "no device"
    return f"{nodes} more nodes want {each}, {fitting} fit: this host has {there}"


def _reason(device: Device, need: Need, held: Holdings) -> str:
    """Where a device went, or would have gone."""
    own = held.seats.get(device.uuid, 0)
    if device.fault is not None:
        return "lost" if device.lost else "not answering"
    if device.sliced:
        return "divided into MIG slices"
    if device.parent is not None and need.gpus > 1:
        return "MIG slices, of which a process sees only one"
    if device.uuid in held.taken:
        return "taken by others"
    if device.uuid in held.unlockable:
        return "without its lock"
    if own >= need.nodes_per_gpu:
        return "used by this fleet"
    return "free"
