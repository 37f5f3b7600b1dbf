"""`skep engine`: provision by hand what a hive would provision by itself."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from skep.cli.console import bytes_bar, out, print_json, run, telling
from skep.cli.settings import load_config
from skep.errors import InvalidConfig
from skep.provision.catalog import CATALOG, engine_for
from skep.provision.ensure import Engine, ensure, list_engines, planned
from skep.provision.plan import Plan
from skep.spec.config import Config
from skep.spec.engine import EngineSpec
from skep.spec.folders import folders, provisioned

engine = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Bring engines to this machine, and list them.",
    rich_markup_mode="rich",
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="A skep.toml instead of ./skep.toml.")
]


def _declared(name: str, config: Config, version: str, features: list[str]) -> EngineSpec:
    """Return the `[[engine]]` of that id, else the well-known engine of that name. Raises: InvalidConfig."""
    for spec in config.engine:
        if spec.id == name:
            return spec
    try:
        return engine_for(name, version=version, features=features)
    except InvalidConfig as error:
        if name in CATALOG or not config.engine:
            raise
        ids = ", ".join(spec.id for spec in config.engine)
        raise InvalidConfig(f"{error}; and the configuration declares {ids}", name=name) from error


def _root(config: Config) -> Path:
    return provisioned(folders(os.environ), cache_dir=config.provisioning.cache_dir)[0]


@engine.command("ensure")
def engine_ensure(
    name: Annotated[
        str,
        typer.Argument(help=f"An \\[\\[engine]] id of the configuration, or: {', '.join(sorted(CATALOG))}."),
    ],
    version: Annotated[str, typer.Option(help="A tag, branch or release; latest is the newest.")] = "latest",
    feature: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, metal, rocm, vulkan; may be repeated.")
    ] = None,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps; do none of them.")] = False,
    print_folder: Annotated[
        bool, typer.Option("--print-folder", help="Only its folder below the engines' folder.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring an engine to this machine unless it is there; interrupted work is taken up again.

    [bold]skep engine ensure llama-cpp --feature cuda[/bold] builds llama.cpp's server for NVIDIA devices.
    """
    settings = load_config(config).config
    root, allow = _root(settings), frozenset(settings.provisioning.allow)
    spec = _declared(name, settings, version, feature or [])
    if dry_run:
        _show(run(lambda: planned(spec, root=root, allow=allow)), as_json=as_json)
        return
    with bytes_bar(quiet=quiet) as tell:
        found = run(lambda: ensure(spec, root=root, allow=allow, on_progress=telling(tell)))
    if print_folder:
        out().print(_folder(found, root))
    elif as_json:
        print_json(found)
    else:
        out().print(f"{found.id} {found.version or '(version unknown)'}: {found.program}", markup=False)


def _show(found: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for number, step in enumerate(found.steps, 1):
        needs = f"  (needs [provisioning] allow {step.permission})" if step.permission else ""
        out().print(f"{number}. {step.name}: {step.detail}{needs}", markup=False)
        if step.argv:
            out().print(f"   $ {shlex.join(step.argv)}", markup=False)
    if not found.steps:
        out().print("nothing to do: it is here", markup=False)
    out().print(f"the program: {found.program}", markup=False)


def _folder(found: Engine, root: Path) -> str:
    return f"{found.kind}/{found.key}" if (root / found.kind / found.key).is_dir() else ""


@engine.command("list")
def engine_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the engines that were brought to this machine.

    Example: [bold]skep engine list[/bold]
    """
    found = list_engines(_root(load_config(config).config))
    if as_json:
        print_json(found)
        return
    for each in found:
        out().print(f"{each.id:16} {each.kind:14} {each.version:32} {each.program}", markup=False)
    if not found:
        out().print("none yet. Bring one with: skep engine ensure llama-cpp", markup=False)
