"""``celery gpus``: what this host has, as the autoscaler and its nodes will see it.

Every ``celery`` command imports this module: there the memory guard is installed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from celery_concurrent.errors import ConfigurationError, MissingExtraError
from celery_concurrent.gpu import install
from celery_concurrent.gpu.device import Device, Inventory
from celery_concurrent.gpu.simulated import Simulated

if TYPE_CHECKING:
    from rich.table import Table

install.install()

_GIB = 1024**3
_WIDEST = 1_000


@click.command(help="Show this host's GPUs and MIG slices.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object per device.")
@click.option(
    "--simulate-gpus", type=click.IntRange(min=0), metavar="N", help="N devices that are not there."
)
def gpus(as_json: bool, simulate_gpus: int | None) -> None:
    """Print the inventory. A host without GPUs is no error: exit status 0, and it says why."""
    try:
        found = _inventory(simulate_gpus)
        if as_json:
            click.echo(json.dumps([_row(device) for device in found.devices]))
        elif found.devices:
            _print_table(found.devices)
    except (ConfigurationError, MissingExtraError) as error:
        raise click.ClickException(str(error)) from error
    if not found.devices:
        # Beside JSON it goes to stderr, for stdout is then a program's.
        click.echo(f"no GPU here: {found.absence or 'the driver knows of none'}", err=as_json)


def _inventory(simulated: int | None) -> Inventory:
    if simulated is not None:
        return Simulated.of(simulated).inventory()
    # Every `celery` command imports this module, and the bindings are not light.
    from celery_concurrent.gpu import nvml

    return nvml.inventory()


def _row(device: Device) -> dict[str, Any]:
    return {**asdict(device), "usable": device.usable}


def _print_table(devices: tuple[Device, ...]) -> None:
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'the table needs rich: pip install "celery-concurrent[gpu]". --json works without'
        ) from error
    # As wide as it is, also in a narrow terminal or a pipe: a UUID that is cut off is useless.
    console = Console(highlight=False, width=_WIDEST)
    made = table(devices)
    console.width = console.measure(made).maximum
    console.print(made)


def table(devices: tuple[Device, ...]) -> Table:
    """One line per device, a slice below its GPU."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("index", "name", "uuid", "free", "memory", "busy", "processes", "state"):
        right = name in {"free", "memory", "busy", "processes"}
        made.add_column(name, justify="right" if right else "left", no_wrap=True)
    for device in devices:
        made.add_row(
            f"{device.index}" if device.parent is None else f"  slice {device.index}",
            device.name,
            device.uuid,
            _bytes(None if device.memory is None else device.memory.free),
            _bytes(None if device.memory is None else device.memory.total),
            "-" if device.utilisation is None else f"{device.utilisation}%",
            "-" if device.processes is None else f"{len(device.processes)}",
            _state(device),
        )
    made.caption = f"driver {devices[0].driver}"
    made.caption_justify = "left"
    return made


def _bytes(amount: int | None) -> str:
    return "-" if amount is None else f"{amount / _GIB:.1f} GiB"


def _state(device: Device) -> str:
    if device.fault is not None:
        return f"{'lost' if device.lost else 'no answer'}: {device.fault}"
    return "in slices" if device.sliced else "ok"
