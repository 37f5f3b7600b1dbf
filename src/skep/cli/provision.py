"""`skep engine` and `skep model`: provision by hand what a hive would provision by itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from skep.cli.console import bytes_bar, out, print_json, run
from skep.errors import InvalidConfig
from skep.provision.catalog import CATALOG, engine_for
from skep.provision.ensure import Engine, ensure, list_engines
from skep.provision.model import ensure_model
from skep.provision.progress import Progress
from skep.spec.config import check, read_layer
from skep.spec.engine import EngineSpec
from skep.spec.folders import folders
from skep.spec.model import parse_ref

engine = typer.Typer(
    no_args_is_help=True, help="Bring engines to this machine, and list them.", rich_markup_mode="rich"
)
model = typer.Typer(
    no_args_is_help=True, help="Bring models to this machine, and look at them.", rich_markup_mode="rich"
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def _telling(tell: Callable[[str, int, int, str], None]) -> Callable[[Progress], None]:
    return lambda progress: tell(progress.step, progress.done, progress.total, progress.detail)


def _declared(name: str, config: Path | None, version: str, features: list[str]) -> EngineSpec:
    """Return the `[[engine]]` of that id, else the well-known engine of that name."""
    if config is not None:
        if not config.is_file():
            raise InvalidConfig(f"{config}: no such file. Give another with --config")
        for spec in check(read_layer(config.read_text(), source=str(config))).engine:
            if spec.id == name:
                return spec
    return engine_for(name, version=version, features=features)


@engine.command("ensure")
def engine_ensure(
    name: Annotated[
        str, typer.Argument(help=f"An \\[\\[engine]] id of --config, or: {', '.join(sorted(CATALOG))}.")
    ],
    version: Annotated[str, typer.Option(help="A tag, branch or release; latest is the newest.")] = "latest",
    feature: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, metal, rocm, vulkan; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A skep.toml that declares it.")
    ] = None,
    print_folder: Annotated[
        bool, typer.Option("--print-folder", help="Only its folder below the engines' folder.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring an engine to this machine unless it is there; interrupted work is taken up again.

    [bold]skep engine ensure llama-cpp --feature cuda[/bold] builds llama.cpp's server for NVIDIA devices.
    """
    root = folders(os.environ).engines
    spec = _declared(name, config, version, feature or [])
    with bytes_bar(quiet=quiet) as tell:
        found = run(lambda: ensure(spec, root=root, on_progress=_telling(tell)))
    if print_folder:
        out().print(_folder(found, root))
    elif as_json:
        print_json(found)
    else:
        out().print(f"{found.id} {found.version or '(version unknown)'}: {found.program}", markup=False)


def _folder(found: Engine, root: Path) -> str:
    return f"{found.kind}/{found.key}" if (root / found.kind / found.key).is_dir() else ""


@engine.command("list")
def engine_list(as_json: JsonOption = False) -> None:
    """List the engines that were brought to this machine."""
    found = list_engines(folders(os.environ).engines)
    if as_json:
        print_json(found)
        return
    for each in found:
        out().print(f"{each.id:16} {each.kind:14} {each.version:32} {each.program}", markup=False)
    if not found:
        out().print("none yet. Bring one with: skep engine ensure llama-cpp", markup=False)


@model.command("ensure")
def model_ensure(
    ref: Annotated[str, typer.Argument(help="A path, hf:owner/repo/file@rev or https://…#sha256=…")],
    quiet: QuietOption = False,
) -> None:
    """Bring a model's file to this machine unless it is there, and print its path.

    [bold]skep model ensure hf:owner/repo/model-q4.gguf[/bold]
    """
    with bytes_bar(quiet=quiet) as tell:
        found = run(
            lambda: ensure_model(parse_ref(ref), root=folders(os.environ).models, on_progress=_telling(tell))
        )
    out().print(str(found), markup=False)


@model.command("list")
def model_list(as_json: JsonOption = False) -> None:
    """List the model files that were brought to this machine."""
    root = folders(os.environ).models
    found = {str(path): path.stat().st_size for path in sorted(root.rglob("*.gguf"))}
    if as_json:
        print_json([{"path": path, "size_bytes": size} for path, size in found.items()])
        return
    for path, size in found.items():
        out().print(f"{size / 2**20:10.1f} MiB  {path}", markup=False)
    if not found:
        out().print("none yet. Bring one with: skep model ensure hf:owner/repo/file.gguf", markup=False)
