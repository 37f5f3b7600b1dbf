"""`skep doctor`: what was found on this machine, and whether it works."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from skep import __version__
from skep.cli.console import err, out, print_json, run
from skep.errors import SkepError
from skep.process.socket import bind_listener
from skep.spec.device import Device
from skep.spec.folders import folders

PORTS = {8080: "gateway", 8081: "queen", 9200: "hive"}
TOOLS = {
    "git": "source engines",
    "cmake": "source engines",
    "ssh": "your own use; skep brings its SSH",
    "nvidia-smi": "NVIDIA devices",
}
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "fail": "[red]fail[/red]"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `verdict`: ok, note (works without) or fail."""

    area: str
    name: str
    verdict: str
    details: str


def doctor(
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Load the tiny model through each library and compare known tokens."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Tell what was found here: library, devices, memory, ports, folders, tools. Exit 1 when something essential fails.

    [bold]skep doctor --selftest[/bold] also runs the tiny model through every llama.cpp library on this machine.
    """
    looks: list[Callable[[], Iterator[Finding]]] = [
        _interpreter,
        _libraries,
        _devices,
        _ports,
        _folders,
        _tools,
    ]
    if selftest:
        err().print("running the self-test; it takes a few seconds a library …", style="dim")
        looks[1] = _tested_libraries
    found = [finding for look in looks for finding in _looked(look)]
    if as_json:
        print_json(found)
    else:
        table = Table("area", "what", "", "details")
        area = ""
        for finding in found:
            if area and finding.area != area:
                table.add_section()
            table.add_row(
                finding.area if finding.area != area else "",
                finding.name,
                MARKS[finding.verdict],
                Text(finding.details),
            )
            area = finding.area
        out().print(table)
    if any(finding.verdict == "fail" for finding in found):
        raise typer.Exit(1)


def _looked(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except SkepError as error:
        yield Finding(area=look.__name__.strip("_"), name=error.code, verdict="fail", details=str(error))


def _interpreter() -> Iterator[Finding]:
    yield Finding(area="skep", name=f"skep {__version__}", verdict="ok", details=sys.executable)
    yield Finding(
        area="skep",
        name=f"Python {platform.python_version()}",
        verdict="ok",
        details=f"{platform.system()} {platform.machine()}",
    )


_NO_LIBRARY = Finding(
    area="library",
    name="llama.cpp",
    verdict="fail",
    details="none was found; the fake backend still works. Next: pip install xllamacpp, or skep[native]",
)


def _libraries() -> Iterator[Finding]:
    from skep.runtime.llama.selftest import describe

    results = describe()
    if not results:
        yield _NO_LIBRARY
    for result in results:
        name = f"{result.candidate.provider} {result.candidate.version}".strip()
        if result.info is None:
            yield Finding(area="library", name=name, verdict="fail", details=result.error)
        else:
            layout = f"{result.info.build}, context structure {result.info.context_params_bytes} bytes"
            yield Finding(
                area="library", name=name, verdict="ok", details=f"{layout}; {result.candidate.path}"
            )


def _tested_libraries() -> Iterator[Finding]:
    from skep.runtime.llama.selftest import self_test

    results = self_test()
    if not results:
        yield _NO_LIBRARY
    for result in results:
        name = f"{result.candidate.provider} {result.candidate.version}".strip()
        if result.error:
            yield Finding(area="library", name=name, verdict="fail", details=result.error)
        if result.is_ok:
            details = f"{len(result.checks)} checks passed: known tokens, options read back, copies, seeds, interrupts"
            yield Finding(area="library", name=name, verdict="ok", details=details)
        for check in result.checks:
            if not check.is_ok:
                yield Finding(
                    area="library", name=f"{name}: {check.name}", verdict="fail", details=check.detail
                )


def _devices() -> Iterator[Finding]:
    from skep.hive.devices.inventory import Inventory

    async def look() -> tuple[Device, ...]:
        return await Inventory.of_this_machine([]).refresh()

    for device in run(look):
        free, total = device.memory_free_bytes / 2**30, device.memory_total_bytes / 2**30
        details = f"{free:.1f} of {total:.1f} GiB free"
        if device.temperature_c is not None:
            details += f", {device.temperature_c:g} °C"
        yield Finding(area="devices", name=f"{device.id} {device.name}", verdict="ok", details=details)


def _ports() -> Iterator[Finding]:
    for port, use in PORTS.items():
        try:
            bind_listener("127.0.0.1", port).close()
        except SkepError as error:
            yield Finding(area="ports", name=f"{port} ({use})", verdict="note", details=str(error))
        else:
            yield Finding(area="ports", name=f"{port} ({use})", verdict="ok", details="free")


def _folders() -> Iterator[Finding]:
    where = folders(os.environ)
    for name in ("runtime", "state", "data", "cache", "config"):
        path = getattr(where, name)
        anchor = next(parent for parent in (path, *path.parents) if parent.exists())
        can_write = os.access(anchor, os.W_OK)
        free = shutil.disk_usage(anchor).free / 2**30
        details = (
            f"{path}, {free:.1f} GiB free"
            if can_write
            else f"{path} cannot be written: set SKEP_HOME to a folder of yours"
        )
        yield Finding(area="folders", name=name, verdict="ok" if can_write else "fail", details=details)


def _tools() -> Iterator[Finding]:
    for tool, use in TOOLS.items():
        path = shutil.which(tool)
        verdict, details = ("ok", path) if path else ("note", f"not here; needed only for {use}")
        yield Finding(area="tools", name=tool, verdict=verdict, details=details)
