"""`skep config`: what the configuration comes to, where each value came from, and its schema."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from skep.cli import console
from skep.cli.settings import load_config
from skep.spec.config import Config
from skep.spec.schema import toml_schema

config = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Show the configuration and where each value came from. Example: [bold]skep config show[/bold]",
    context_settings={"help_option_names": ["-h", "--help"]},
)

SECTIONS = ("queen", "hive_daemon", "restarts", "provisioning")


@config.command("show")
def show(
    file: Annotated[Path | None, typer.Option("--config", help="A skep.toml instead of ./skep.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Print each value and its source: a file, the environment, or the default.

    Example: [bold]SKEP_HIVE_DAEMON_BIND=127.0.0.1:9300 skep config show[/bold]
    """
    resolved = load_config(file)
    rows = _rows(resolved.config, resolved.origins)
    if as_json:
        console.print_json(
            [{"field": field, "value": value, "source": source} for field, value, source in rows]
        )
        return
    table = Table("field", "value", "source")
    for field, value, source in rows:
        table.add_row(field, value if isinstance(value, str) else msgspec.json.encode(value).decode(), source)
    console.out().print(table)


@config.command("schema")
def schema() -> None:
    """Print the JSON schema of skep.toml, for editors.

    Example: [bold]skep config schema > skep.schema.json[/bold]
    """
    console.print_json(toml_schema())


def _rows(found: Config, origins: Any) -> list[tuple[str, Any, str]]:
    values = msgspec.to_builtins(found)
    rows = []
    for name, value in values.items():
        if name in SECTIONS:
            fields = [(f"{name}.{inner}", one) for inner, one in value.items()]
        else:
            fields = [(name, value)] if value else []
        rows += [(field, one, origins.get(field, "default")) for field, one in fields]
    return rows
