"""`skep nodes`: the machines that have registered with a queen."""

import typer
from rich.table import Table

from skep.cli import console
from skep.cli.queen import TokenFile, Url, read_token
from skep.queen.adminclient import call

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def nodes(
    ctx: typer.Context,
    url: Url = "http://127.0.0.1:8081",
    token_file: TokenFile = None,
    json: bool = typer.Option(False, "--json", help="For scripts."),
) -> None:
    """List the nodes of a fleet, and stop or allow new work on one.

    Example: [bold]skep nodes[/bold], then [bold]skep nodes cordon gpu-1[/bold] before a machine is serviced.
    """
    ctx.obj = (url, read_token(token_file))
    if ctx.invoked_subcommand is not None:
        return
    found = console.run(lambda: call(url, ctx.obj[1], "GET", "/v2/nodes"))
    if json:
        console.print_json(found)
        return
    table = Table()
    for heading in ("node", "state", "heard of", "devices", "memory free", "pools", "version", "address"):
        table.add_column(heading)
    for node in found:
        devices = node["devices"]
        free = sum(one["memory_free_bytes"] for one in devices) / 2**30
        table.add_row(
            node["node_id"],
            node["state"],
            f"{node['seen_s_ago']:.0f} s ago",
            ", ".join(one["name"] for one in devices),
            f"{free:.1f} GiB",
            ", ".join(node["pools"]),
            node["version"],
            node["address"],
        )
    console.out().print(table if found else "no node has registered yet: skep hive --queen URL starts one")


@app.command()
def cordon(ctx: typer.Context, node: str = typer.Argument(help="The node's id.")) -> None:
    """Give a node no new work; what runs there goes on.

    Example: [bold]skep nodes cordon gpu-1[/bold]
    """
    _act(ctx, "POST", f"/v2/nodes/{node}/cordon", f"{node} gets no new work")


@app.command()
def uncordon(ctx: typer.Context, node: str = typer.Argument(help="The node's id.")) -> None:
    """Give a node new work again.

    Example: [bold]skep nodes uncordon gpu-1[/bold]
    """
    _act(ctx, "POST", f"/v2/nodes/{node}/uncordon", f"{node} gets new work again")


@app.command()
def forget(ctx: typer.Context, node: str = typer.Argument(help="The node's id.")) -> None:
    """Forget a node that is gone; if its hive lives, it registers again.

    Example: [bold]skep nodes forget gpu-1[/bold]
    """
    _act(ctx, "DELETE", f"/v2/nodes/{node}", f"{node} is forgotten")


def _act(ctx: typer.Context, method: str, path: str, done: str) -> None:
    url, token = ctx.obj
    console.run(lambda: call(url, token, method, path))
    console.err().print(done, markup=False)
