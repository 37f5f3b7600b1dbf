"""`skep devices`: what a pool's mask can name on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from skep.cli import console
from skep.cli.settings import load_config
from skep.spec.device import Device

GIB = 1024**3


def devices(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    config: Annotated[Path | None, typer.Option(help="A skep.toml with [[fake_device]] tables.")] = None,
) -> None:
    """List this machine's devices: index, UUID, memory, temperature.

    Example: [bold]skep devices[/bold], then [bold]devices = "0,1"[/bold] or a UUID in a [[pool]].
    """
    from skep.hive.devices.inventory import Inventory

    fakes = load_config(config).config.fake_device
    found = console.run(lambda: Inventory.of_this_machine(fakes).refresh())
    if as_json:
        console.print_json(found)
        return
    table = Table("mask", "kind", "name", "memory", "free", "°C", "compute", "id")
    for one in found:
        table.add_row(*_row(one))
    console.out().print(table)


def _row(one: Device) -> tuple[str, ...]:
    return (
        one.id if one.kind == "cpu" else str(one.index),
        one.kind.value,
        one.name,
        f"{one.memory_total_bytes / GIB:.1f} GiB",
        f"{one.memory_free_bytes / GIB:.1f} GiB",
        "" if one.temperature_c is None else f"{one.temperature_c:.0f}",
        one.compute_capability or "",
        one.id,
    )
