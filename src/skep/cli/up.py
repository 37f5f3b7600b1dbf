"""`skep up`: a whole fleet on this machine, in one command."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from skep.cli.console import bytes_bar, err, out, run
from skep.cli.fleet import Fleet, FleetOptions, PoolWish, elapsed, running
from skep.errors import InvalidInput
from skep.process.socket import bind_listener
from skep.provision.model import ensure_model
from skep.spec.folders import folders
from skep.spec.model import parse_ref

ADMIN_PORT, HIVE_PORT = 8081, 9200
FAKE_MODEL = "fake:demo"


def up(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…", help="Paths, hf:owner/repo/file or https://…#sha256=…; NAME=REF names one."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The gateway's port; 0: free ones for every part.")
    ] = 8080,
    slots: Annotated[int, typer.Option(min=1, help="Requests that each worker decodes at a time.")] = 4,
    context: Annotated[int, typer.Option(min=16, help="Tokens of each slot.")] = 4096,
    replicas: Annotated[int, typer.Option(min=1, help="Workers for each model.")] = 1,
    devices: Annotated[str, typer.Option(help="auto, cpu, or devices such as 0,1.")] = "auto",
    backend: Annotated[str, typer.Option(help="llama, or fake: no model and no library needed.")] = "llama",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Same logits whoever else is served.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the URL.")] = False,
) -> None:
    """Serve models on this machine: a queen, a hive and workers in one process tree, on loopback.

    [bold]skep up[/bold] serves the tiny model that skep ships, [bold]skep up ./model.gguf[/bold] yours. Then:
    [bold]skep chat[/bold], or point any OpenAI client at the URL. Ctrl-C stops everything.
    """
    if backend not in {"llama", "fake"}:
        raise typer.BadParameter("llama or fake", param_hint="--backend")
    settings: dict[str, Any] = {
        "slots": slots,
        "context": context,
        "replicas": replicas,
        "devices": devices,
        "deterministic": deterministic,
        "backend": backend,
    }
    _check_port_free(port)
    pools = _pools(models or [], settings, quiet=quiet)
    options = FleetOptions(
        pools=pools,
        gateway_port=port,
        admin_port=_free_or_any(ADMIN_PORT) if port else 0,
        hive_port=_free_or_any(HIVE_PORT) if port else 0,
        runtime=folders(os.environ).runtime,
    )
    run(lambda: _serve(options, quiet=quiet))


async def _serve(options: FleetOptions, *, quiet: bool) -> None:
    began_s = time.monotonic()
    stop = asyncio.Event()
    caught: list[int] = []
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        caught.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    stopping = asyncio.create_task(stop.wait())
    working = asyncio.create_task(_run(options, began_s, quiet=quiet))
    await asyncio.wait([stopping, working], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        err().print("stopping …", style="dim")
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    if signal.SIGINT in caught:
        raise typer.Exit(130)


async def _run(options: FleetOptions, began_s: float, *, quiet: bool) -> None:
    note = err()
    async with running(options) as fleet:
        if not quiet:
            note.print(f"queen   ready   {fleet.admin}", style="dim")
            note.print(f"hive    ready   {fleet.hive}", style="dim")

        def on_state(pool: str, state: str) -> None:
            if not quiet:
                note.print(f"pool    {state:12} {pool}", style="dim", markup=False)

        await fleet.until_ready(on_state=on_state)
        if quiet:
            out().print(f"{fleet.gateway}/v1", markup=False)
        else:
            await _show(fleet, options, began_s)
        await fleet.until_one_ends()


async def _show(fleet: Fleet, options: FleetOptions, began_s: float) -> None:
    console = out()
    table = Table(title=f"ready after {elapsed(began_s)}", title_justify="left")
    for heading in ("pool", "model", "state", "devices", "replicas"):
        table.add_column(heading)
    for pool in await fleet.pools():
        devices = pool.get("device_mask") or pool.get("devices") or ""
        shown = devices if isinstance(devices, str) else ",".join(devices)
        ready = sum(replica["state"] == "ready" for replica in pool["replicas"])
        table.add_row(
            pool["pool_id"], str(pool["model"]), pool["state"], shown, f"{ready}/{len(pool['replicas'])}"
        )
    console.print(table)
    name = options.pools[0].name
    console.print(
        f"\nOpenAI API   [bold]{fleet.gateway}/v1[/bold]        admin   {fleet.admin}        hive   {fleet.hive}"
    )
    console.print("\nTry it:")
    address = "" if fleet.gateway.endswith(":8080") else f" --url {fleet.gateway}"
    console.print(f'  skep chat{address} -m "what color is the sky?"', markup=False)
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "what color is the sky?"}}]}}'
    console.print(
        f"  curl {fleet.gateway}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'",
        markup=False,
    )
    console.print("\nCtrl-C stops everything.", style="dim")


def _pools(models: Sequence[str], settings: dict[str, Any], *, quiet: bool) -> tuple[PoolWish, ...]:
    """Bring each model here and look at its header, so that a bad file is told before anything is started."""
    if not models:
        models = [FAKE_MODEL if settings["backend"] == "fake" else _tiny()]
    found: dict[str, str] = {}
    with bytes_bar(quiet=quiet) as tell:
        for text in models:
            name, ref = _named(text)
            if name in found:
                raise InvalidInput(f"two models would be called {name!r}: name one with OTHER={ref}")
            found[name] = ref if settings["backend"] == "fake" else str(_fetch(ref, tell))
    return tuple(
        PoolWish(id=f"pool-{number}", name=name, model=ref, settings=settings)
        for number, (name, ref) in enumerate(found.items())
    )


def _tiny() -> str:
    from skep.runtime.models import TINY

    return f"tiny={TINY}"


def _fetch(ref: str, tell: Any) -> Path:
    from skep.runtime.gguf import preflight

    root = folders(os.environ).models
    path = run(
        lambda: ensure_model(
            parse_ref(ref), root=root, on_progress=lambda p: tell(p.step, p.done, p.total, p.detail)
        )
    )
    preflight(path)
    return path


def _named(text: str) -> tuple[str, str]:
    """Split NAME=REF; without a name, the file's stem is it."""
    if match := re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(.+)", text):
        return match[1], match[2]
    ref = text.partition("#")[0].partition("@")[0] if text.startswith(("hf:", "http")) else text
    if ref.startswith("fake:"):
        return ref.removeprefix("fake:").partition("?")[0] or "fake", text
    return Path(ref).stem, text


def _check_port_free(port: int) -> None:
    """Raises: PortInUse. The queen binds it a moment later, and says the same if somebody was faster."""
    bind_listener("127.0.0.1", port).close()


def _free_or_any(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
