"""`skep pool`: look at a hive's pools and act on them."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from skep.cli import console
from skep.cli.hive_client import HiveClient
from skep.errors import SkepError

pool = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Look at a hive's pools and act on them. Example: [bold]skep pool preload pool-0 --wait[/bold]",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Id = Annotated[str, typer.Argument(metavar="POOL", help="The pool's id.")]
Url = Annotated[
    str, typer.Option("--hive", envvar="SKEP_HIVE_URL", help="The hive's URL.", show_default=True)
]
TokenFile = Annotated[str, typer.Option(envvar="SKEP_HIVE_DAEMON_TOKEN_FILE", help="File with its token.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done; exit 1 when it failed.")]
Deadline = Annotated[float, typer.Option(min=0, help="Seconds that running jobs get to end by themselves.")]

HIVE_URL = "http://127.0.0.1:9200"


@pool.command("list")
def list_pools(
    url: Url = HIVE_URL,
    token_file: TokenFile = "",
    as_json: Json = False,
    loaded_ids: Annotated[
        bool,
        typer.Option(
            "--loaded-ids", help="Only the ids of the pools that are loaded or on their way, one a line."
        ),
    ] = False,
) -> None:
    """List the pools.

    Example: [bold]skep pool list[/bold]
    """
    found = _ask(url, token_file, "GET", "/v2/pools")["pools"]
    if loaded_ids:
        for one in found:
            if one["state"] not in {"declared", "offline", "draining"}:
                console.out().print(one["pool_id"], markup=False)
        return
    if as_json:
        console.print_json(found)
        return
    table = Table("pool", "model", "state", "devices", "replicas", "slots free")
    for one in found:
        up = sum(replica["state"] == "ready" for replica in one["replicas"])
        table.add_row(
            one["pool_id"],
            one["model"],
            one["state"],
            ",".join(one["device_mask"]),
            f"{up}/{one['replicas_wanted']}",
            f"{one['slots_free']}/{one['slots_total']}",
        )
    console.out().print(table)
    for one in found:
        if one["last_error"]:
            console.out().print(f"{one['pool_id']}: {one['last_error']['message']}", markup=False)


@pool.command("status")
def status(pool_id: Id, url: Url = HIVE_URL, token_file: TokenFile = "", as_json: Json = False) -> None:
    """Show one pool: its replicas, what it needs of memory, its last error.

    Example: [bold]skep pool status pool-0[/bold]
    """
    found = _ask(url, token_file, "GET", f"/v2/pools/{pool_id}")
    if as_json:
        console.print_json(found)
        return
    out = console.out()
    out.print(
        f"[bold]{found['pool_id']}[/bold]  {found['state']}  {found['model']}  on {','.join(found['device_mask'])}"
    )
    out.print(f"engine     {found['engine']} {found['engine_version']}", markup=False)
    out.print(f"model      {found['model_ref']}", markup=False)
    for label, value in (("memory", found["fit"]), ("loading", found["provisioning"])):
        if value:
            out.print(f"{label:10} {value}", markup=False)
    if found["last_error"]:
        out.print(f"last error {found['last_error']['code']}: {found['last_error']['message']}", markup=False)
    table = Table("replica", "state", "pid", "slots free", "queue", "restarts", "breaker", "error")
    for one in found["replicas"]:
        table.add_row(
            one["replica_id"],
            one["state"],
            str(one["pid"] or ""),
            f"{one['slots_free']}/{one['slots_total']}",
            str(one["queue_depth"]),
            str(one["restart_count"]),
            one["breaker"],
            (one["last_error"] or {}).get("message", ""),
        )
    out.print(table)


@pool.command("preload")
def preload(pool_id: Id, url: Url = HIVE_URL, token_file: TokenFile = "", wait: Wait = False) -> None:
    """Load a pool.

    Example: [bold]skep pool preload pool-0 --wait[/bold]
    """
    _act(url, token_file, pool_id, "preload", None, wait, done=("ready",), failed=("unready", "offline"))


@pool.command("drain")
def drain(
    pool_id: Id,
    deadline_s: Deadline = 30.0,
    url: Url = HIVE_URL,
    token_file: TokenFile = "",
    wait: Wait = False,
) -> None:
    """End a pool's jobs, then its workers.

    Example: [bold]skep pool drain pool-0 --deadline-s 60 --wait[/bold]
    """
    body = {"deadline_ms": round(deadline_s * 1000)}
    _act(url, token_file, pool_id, "drain", body, wait, done=("offline",), failed=())


@pool.command("reload")
def reload(
    pool_id: Id,
    model: Annotated[
        str | None, typer.Option(help="Another model; the same is read again without it.")
    ] = None,
    deadline_s: Deadline = 30.0,
    url: Url = HIVE_URL,
    token_file: TokenFile = "",
    wait: Wait = False,
) -> None:
    """Put another model in a pool's place.

    Example: [bold]skep pool reload pool-0 --model llama-3.1-8b --wait[/bold]
    """
    body = {"model": model, "deadline_ms": round(deadline_s * 1000)}
    _act(url, token_file, pool_id, "reload", body, wait, done=("ready",), failed=("unready", "offline"))


@pool.command("reset")
def reset(pool_id: Id, url: Url = HIVE_URL, token_file: TokenFile = "", wait: Wait = False) -> None:
    """Forgive failures and try again at once.

    Example: [bold]skep pool reset pool-0 --wait[/bold]
    """
    _act(
        url, token_file, pool_id, "reset", None, wait, done=("ready", "offline", "idle"), failed=("unready",)
    )


@pool.command("why")
def why(pool_id: Id, url: Url = HIVE_URL, token_file: TokenFile = "", as_json: Json = False) -> None:
    """Say why a pool is in its state: the policy's verdicts with their inputs.

    Example: [bold]skep pool why pool-0[/bold]
    """
    found = _ask(url, token_file, "GET", f"/v2/pools/{pool_id}/why")
    if as_json:
        console.print_json(found)
        return
    out = console.out()
    out.print(f"{found['pool_id']} is {found['state']}", markup=False)
    if found["last_error"]:
        out.print(f"cause: {found['last_error']['message']}", markup=False)
        if tail := found["last_error"].get("log_tail"):
            out.print(tail, style="dim", markup=False)
    if found["fit"]:
        out.print(f"memory: {found['fit']}", markup=False)
    for one in found["verdicts"]:
        verdict = one["verdict"]
        out.print(
            f"{_clock(one['at'])}  {one['replica_id']}  {verdict['action']} in {verdict['delay_s']:.1f} s: "
            f"{verdict['because']} (breaker {verdict['breaker']}, device breaker {verdict['device_breaker']})",
            markup=False,
        )


@pool.command("logs")
def logs(
    pool_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many of the last lines.")
    ] = 100,
    replica: Annotated[str | None, typer.Option(help="Of one replica only.")] = None,
    url: Url = HIVE_URL,
    token_file: TokenFile = "",
) -> None:
    """Print what a pool's workers logged.

    Example: [bold]skep pool logs pool-0 -f[/bold]
    """

    async def main() -> None:
        query = f"?lines={lines}&follow={json.dumps(follow)}" + (f"&replica={replica}" if replica else "")
        async with HiveClient(url, token_file) as client:
            async for event in client.stream(f"/v2/pools/{pool_id}/logs{query}"):
                console.out().print(f"{event.event}  {event.data}", markup=False)

    console.run(main)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def _ask(url: str, token_file: str, method: str, path: str, body: Any = None) -> Any:
    async def main() -> Any:
        async with HiveClient(url, token_file) as client:
            return await client.ask(method, path, body)

    return console.run(main)


def _act(
    url: str,
    token_file: str,
    pool_id: str,
    verb: str,
    body: Any,
    wait: bool,
    *,
    done: tuple[str, ...],
    failed: tuple[str, ...],
) -> None:
    """Begin long work; with `--wait`, tell each state on stderr until it is done or has failed."""

    async def main() -> None:
        async with HiveClient(url, token_file) as client:
            last = await client.last_event(pool_id) if wait else 0
            accepted = await client.ask("POST", f"/v2/pools/{pool_id}/{verb}", body)
            if not wait:
                console.out().print(f"{pool_id} {accepted['state']}", markup=False)
                return
            states = client.states(pool_id, after=last)
            found = await _until(client, pool_id, states, done=done, failed=failed)
            if verb == "reload" and found["last_reload"]["outcome"] != "reloaded":
                cause = found["last_reload"]["error"]["message"]
                raise SkepError(f"pool {pool_id} serves what it served before: {cause}")
            console.out().print(f"{pool_id} {found['state']}", markup=False)

    console.run(main)


async def _until(
    client: HiveClient,
    pool_id: str,
    states: AsyncIterator[str],
    *,
    done: tuple[str, ...],
    failed: tuple[str, ...],
) -> dict[str, Any]:
    note, state = console.err(), (await client.ask("GET", f"/v2/pools/{pool_id}"))["state"]
    if state not in done:
        async for state in states:
            note.print(f"{pool_id} {state}", style="dim", markup=False)
            if state in done or state in failed:
                break
    found: dict[str, Any] = await client.ask("GET", f"/v2/pools/{pool_id}")
    if state in failed:
        cause = (found["last_error"] or {}).get("message", "no cause is known")
        raise SkepError(f"pool {pool_id} is {state}: {cause}; `skep pool why {pool_id}` tells more")
    return found
