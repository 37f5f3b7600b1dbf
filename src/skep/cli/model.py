"""`skep model`: provision by hand what a hive would provision by itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from skep.cli.console import bytes_bar, out, print_json, run, telling
from skep.cli.settings import load_config
from skep.provision.model import ensure_model
from skep.provision.progress import OnProgress
from skep.spec.config import Config
from skep.spec.folders import folders, provisioned
from skep.spec.model import ModelRef, parse_ref

model = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Bring models to this machine, and look at them.",
    rich_markup_mode="rich",
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="A skep.toml instead of ./skep.toml.")
]


def _root(config: Config) -> Path:
    return provisioned(folders(os.environ), cache_dir=config.provisioning.cache_dir)[1]


def _named(text: str, config: Config) -> ModelRef:
    """Return the reference of the `[[model]]` of that name or alias, else the reference as given."""
    for one in config.model:
        if text in (one.name, *one.aliases):
            return one.spec().ref
    return parse_ref(text)


async def locate(text: str, config: Config, on_progress: OnProgress) -> Path:
    """Return the file of a model, brought here when it is not; a `[[model]]` of the configuration goes by its name."""
    allow = frozenset(config.provisioning.allow)
    return await ensure_model(_named(text, config), root=_root(config), allow=allow, on_progress=on_progress)


@model.command("ensure")
def model_ensure(
    ref: Annotated[
        str,
        typer.Argument(
            help="A \\[\\[model]] name of the configuration, a path, hf:owner/repo/file@rev or https://…#sha256=…"
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a model's file to this machine unless it is there, and print its path.

    [bold]skep model ensure hf:owner/repo/model-q4.gguf[/bold]
    """
    settings = load_config(config).config
    with bytes_bar(quiet=quiet) as tell:
        found = run(lambda: locate(ref, settings, telling(tell)))
    if as_json:
        print_json(
            {"path": str(found), "size_bytes": found.stat().st_size, "ref": _named(ref, settings).text}
        )
    else:
        out().print(str(found), markup=False)


@model.command("list")
def model_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the model files that were brought to this machine.

    Example: [bold]skep model list --json[/bold]
    """
    root = _root(load_config(config).config)
    found = {str(path): path.stat().st_size for path in sorted(root.rglob("*.gguf"))}
    if as_json:
        print_json([{"path": path, "size_bytes": size} for path, size in found.items()])
        return
    for path, size in found.items():
        out().print(f"{size / 2**20:10.1f} MiB  {path}", markup=False)
    if not found:
        out().print("none yet. Bring one with: skep model ensure hf:owner/repo/file.gguf", markup=False)
