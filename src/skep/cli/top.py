"""`skep top`: the fleet in a terminal, live."""

import asyncio
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skep.cli import console
from skep.cli.queen import TokenFile, Url, read_token
from skep.queen.adminclient import call

_TONES = {"alive": "green", "ready": "green", "ok": "green", "lost": "red", "unready": "red", "failed": "red"}


def top(
    url: Url = "http://127.0.0.1:8081",
    token_file: TokenFile = None,
    every_s: float = typer.Option(1.0, "--every", min=0.2, help="Seconds between looks."),
    once: bool = typer.Option(False, "--once", help="Print once and end; also when this is no terminal."),
    json: bool = typer.Option(False, "--json", help="One overview for scripts."),
) -> None:
    """Watch nodes, devices, pools and rates; Ctrl-C ends it.

    Example: [bold]skep top --url http://queen:8081 --token-file admin.token[/bold]
    """
    token = read_token(token_file)
    seen = console.run(lambda: call(url, token, "GET", "/v2/overview"))
    if json:
        console.print_json(seen)
        return
    screen = console.out()
    if once or not screen.is_terminal:
        screen.print(shown(seen))
        return

    async def watch() -> None:
        with Live(shown(seen), console=screen, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(every_s)
                live.update(shown(await call(url, token, "GET", "/v2/overview")), refresh=True)

    console.run(watch)


def shown(seen: dict[str, Any]) -> RenderableType:
    """Return an overview as tables."""
    return Group(_rates(seen), _nodes(seen["nodes"]), _pools(seen["pools"]))


def _rates(seen: dict[str, Any]) -> Text:
    rates = seen["rates"]
    first = rates["first_token_ms_p50"]
    line = Text.assemble(("skep ", "bold"), _toned(seen["status"]), f"   store {seen['store']}\n")
    line.append(f"{rates['requests_per_s']:.1f} requests/s   {rates['tokens_per_s']:.0f} tokens/s   ")
    line.append(f"first token p50 {'-' if first is None else f'{first:.0f} ms'}   ")
    line.append(
        f"{seen['running']} running   {seen['waiting']} waiting   {rates['errors_per_s']:.1f} errors/s   "
    )
    line.append(f"{seen['retries']} retries   {seen['ejections']} ejections\n")
    return line


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    table = Table(title="nodes", title_justify="left", expand=False)
    for heading in ("node", "state", "device", "memory", "used", "°C"):
        table.add_column(heading)
    for node in nodes:
        for at, device in enumerate(node["devices"] or [None]):
            name, state = (node["node_id"], _toned(node["state"])) if at == 0 else ("", Text())
            if device is None:
                table.add_row(name, state)
                continue
            total = device["memory_total_bytes"]
            used = total - device["memory_free_bytes"]
            heat = device["temperature_c"]
            table.add_row(
                name,
                state,
                device["name"],
                ProgressBar(total=max(total, 1), completed=used, width=24),
                f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB",
                "" if heat is None else f"{heat:.0f}",
            )
    return table


def _pools(pools: list[dict[str, Any]]) -> Table:
    table = Table(title="pools", title_justify="left", expand=False)
    for heading in ("pool", "model", "node", "state", "busy", "waiting", "replicas", "last error"):
        table.add_column(heading)
    for pool in pools:
        replicas = pool["replicas"]
        slots = sum(one["slots_total"] for one in replicas)
        busy = sum(max(one["in_flight"], one["slots_total"] - one["slots_free"]) for one in replicas)
        ready = sum(one["state"] == "ready" for one in replicas)
        table.add_row(
            pool["pool_id"],
            pool["model"],
            pool["node_id"],
            _toned(pool["state"]),
            f"{busy}/{slots}",
            str(pool["waiting"]),
            f"{ready}/{len(replicas)}",
            pool["last_error"] or "",
        )
    return table


def _toned(state: str) -> Text:
    return Text(state, style=_TONES.get(state, "yellow"))
