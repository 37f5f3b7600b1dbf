"""`skep key`: API keys of the gateway."""

import re
import time
from datetime import UTC, datetime

import typer
from rich.table import Table

from skep.cli import console
from skep.cli.queen import TokenFile, Url, read_token
from skep.errors import InvalidConfig
from skep.queen.adminclient import call

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


@app.callback()
def key(ctx: typer.Context, url: Url = "http://127.0.0.1:8081", token_file: TokenFile = None) -> None:
    """Make, list and revoke the keys with which clients ask the gateway.

    Example: [bold]skep key create ci --requests-per-minute 60 --expires 30d[/bold]
    The first key closes the gateway to everybody without one.
    """
    ctx.obj = (url, read_token(token_file))


@app.command()
def create(
    ctx: typer.Context,
    name: str = typer.Argument(help="Whom it is for."),
    model: list[str] = typer.Option([], "--model", help="Only this model; may be given again."),
    requests_per_minute: int = typer.Option(0, min=0, help="0 is no limit."),
    tokens_per_minute: int = typer.Option(0, min=0, help="0 is no limit."),
    tokens_total: int = typer.Option(0, min=0, help="0 is no limit."),
    concurrency: int = typer.Option(0, min=0, help="Requests under way at a time; 0 is no limit."),
    priority: int = typer.Option(0, min=-100, max=100, help="Higher goes first when requests wait."),
    expires: str = typer.Option("", help="After 90m, 12h or 30d; never by default."),
    json: bool = typer.Option(False, "--json", help="For scripts."),
) -> None:
    """Make a key and print it: it is shown this once.

    Example: [bold]skep key create ci --requests-per-minute 60 --expires 30d[/bold]
    """
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_total": tokens_total,
        "concurrency": concurrency,
    }
    body = {
        "name": name,
        "limits": limits,
        "models": model,
        "priority": priority,
        "expires_at": _end(expires),
    }
    url, token = ctx.obj
    made = console.run(lambda: call(url, token, "POST", "/v2/keys", body))
    if json:
        console.print_json(made)
        return
    print(made["key"])
    console.err().print(
        f"key {made['key_id']} for {name}: keep it now, only its hash is stored", markup=False
    )


@app.command("list")
def list_keys(ctx: typer.Context, json: bool = typer.Option(False, "--json", help="For scripts.")) -> None:
    """List keys, their limits, and what they have used.

    Example: [bold]skep key list --json[/bold]
    """
    url, token = ctx.obj
    found = console.run(lambda: call(url, token, "GET", "/v2/keys"))
    if json:
        console.print_json(found)
        return
    table = Table()
    for heading in ("id", "name", "made", "ends", "limits", "models", "requests", "tokens in", "tokens out"):
        table.add_column(heading)
    for one in found:
        limits = ", ".join(
            f"{value} {what.replace('_', ' ')}" for what, value in one["limits"].items() if value
        )
        table.add_row(
            one["key_id"],
            one["name"],
            _day(one["created_at"]),
            _day(one["expires_at"]),
            limits or "none",
            ", ".join(one["models"]) or "all",
            *(str(one["usage"][what]) for what in ("requests", "tokens_in", "tokens_out")),
        )
    console.out().print(
        table if found else "no key yet: the gateway is open on loopback (skep key create NAME)"
    )


@app.command()
def revoke(
    ctx: typer.Context, key_id: str = typer.Argument(help="The id that `skep key list` shows.")
) -> None:
    """Revoke a key: refused at every queen a moment later.

    Example: [bold]skep key revoke ci[/bold]
    """
    url, token = ctx.obj
    console.run(lambda: call(url, token, "DELETE", f"/v2/keys/{key_id}"))
    console.err().print(f"key {key_id} is revoked", markup=False)


def _end(text: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None:
        raise InvalidConfig(f"--expires {text!r}: write 90m, 12h or 30d")
    return time.time() + int(match[1]) * _UNITS_S[match[2]]


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
