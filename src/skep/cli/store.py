"""`skep store`: move what a queen has stored."""

import sys
from pathlib import Path

import typer

from skep.cli import console
from skep.cli.queen import default_store
from skep.errors import InvalidConfig
from skep.store import transfer
from skep.store.address import open_store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_STORE = typer.Option("", help="sqlite:PATH or etcd:http://a,http://b,http://c; a queen's default otherwise.")


@app.callback()
def store() -> None:
    """Copy a queen's store: nodes, declared pools, keys (as hashes), usage, audit.

    Example: [bold]skep store export > fleet.jsonl[/bold]
    then [bold]skep store import fleet.jsonl --store etcd:http://a:2379,http://b:2379,http://c:2379[/bold]
    """


@app.command("export")
def export(store: str = _STORE) -> None:
    """Write the whole store to stdout as lines of JSON, as of one moment.

    Example: [bold]skep store export > store.jsonl[/bold]
    """

    async def run() -> int:
        count = -1
        async with open_store(store or default_store()) as opened:
            async for line in transfer.export_lines(opened):
                sys.stdout.buffer.write(line)
                count += 1
        sys.stdout.buffer.flush()
        return count

    console.err().print(f"{console.run(run)} keys", markup=False)


@app.command("import")
def import_(
    file: Path = typer.Argument(help="What export has written; - reads stdin."),
    store: str = _STORE,
    merge: bool = typer.Option(False, "--merge", help="Overwrite what is there under the same keys."),
) -> None:
    """Write an export into a store, which must be empty; best while no queen uses it.

    Example: [bold]skep store import store.jsonl --store sqlite:new.db[/bold]
    """
    try:
        lines = sys.stdin.buffer.readlines() if str(file) == "-" else file.read_bytes().splitlines()
    except OSError as error:
        raise InvalidConfig(f"cannot read {file}: {error.strerror}") from error
    puts = transfer.read_lines(lines)

    async def run() -> int:
        async with open_store(store or default_store()) as opened:
            return await transfer.import_puts(opened, puts, merge=merge)

    console.err().print(f"{console.run(run)} keys", markup=False)
