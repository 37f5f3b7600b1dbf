"""`skep model info` and `skep model fit`: what a model's file says of itself, and what it needs of memory, term by term."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from skep.cli.console import bytes_bar, out, print_json, run, telling
from skep.cli.model import ConfigOption, JsonOption, QuietOption, locate, model
from skep.cli.settings import load_config
from skep.errors import SkepError
from skep.policy.fit import CACHE_BYTES, Demand, DeviceNeed, FitVerdict, kv_cache_bytes
from skep.runtime.gguf.header import Header

__all__ = ["model"]

RefArgument = Annotated[
    str,
    typer.Argument(
        help="A \\[\\[model]] name of the configuration, a path, hf:owner/repo/file@rev or https://…#sha256=…; "
        "what is not here yet is brought here first."
    ),
]
_MIB, _GIB = 1024**2, 1024**3


@model.command("info")
def model_info(
    ref: RefArgument, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Say what a GGUF file holds, from its header alone; a broken one is named by what is wrong with it.

    [bold]skep model info ./model-q4.gguf[/bold]
    """
    from skep.hive.shape import read_shape

    path = _bring(ref, config, quiet=quiet)
    header, shape = read_shape(path)
    facts = _facts(path, header, shape.weights_bytes)
    facts["kv_cache_bytes_for_1000_tokens"] = kv_cache_bytes(shape, Demand(slots=1, context=1000))
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        shown = _size(value) if isinstance(value, int) and "bytes" in name else _shown(value)
        out().print(f"{name.replace('_bytes', '').replace('_', ' '):28} {shown}", markup=False)


@model.command("fit")
def model_fit(
    ref: RefArgument,
    devices: Annotated[
        str, typer.Option(help='The mask: "0,1", a UUID, "cpu"; auto: every accelerator, else the CPU.')
    ] = "auto",
    slots: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    context: Annotated[int, typer.Option(min=1, help="Tokens of each slot.")] = 4096,
    cache_type: Annotated[
        str, typer.Option(help=f"Type of a cached value: {', '.join(CACHE_BYTES)}.")
    ] = "f16",
    split: Annotated[str, typer.Option(help="Shares over unequal devices, as in 0.6,0.4.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a model needs of memory and why, device by device, against what is free now; exit 1 when it does not fit.

    [bold]skep model fit ./model-q4.gguf --devices 0 --slots 8 --context 8192[/bold]
    """
    from skep.hive.shape import judge_here, read_shape

    if cache_type not in CACHE_BYTES:
        raise typer.BadParameter(f"{cache_type!r} is none of {', '.join(CACHE_BYTES)}")
    try:
        shares = tuple(float(one) for one in split.split(",")) if split else ()
    except ValueError:
        raise typer.BadParameter(f"{split!r} is not a list of shares, as in 0.6,0.4") from None
    fakes = load_config(config).config.fake_device
    _, shape = read_shape(_bring(ref, config, quiet=quiet))
    demand = Demand(
        slots=slots, context=context, cache_type_k=cache_type, cache_type_v=cache_type, split=shares
    )
    verdict = run(lambda: judge_here(shape, demand, devices=devices, fakes=fakes))
    if as_json:
        print_json(verdict)
    else:
        _show(verdict, demand)
    if not verdict.fits:
        raise SkepError(
            f"it does not fit: {verdict.because}. Fewer --slots, less --context, or other --devices"
        )


def _bring(ref: str, config: Path | None, *, quiet: bool) -> Path:
    with bytes_bar(quiet=quiet) as tell:
        return run(lambda: locate(ref, load_config(config).config, telling(tell)))


def _facts(path: Path, header: Header, weights: int) -> dict[str, object]:
    terms = header.memory_terms()
    return {
        "path": str(path),
        "name": header.name,
        "architecture": header.architecture,
        "quantization": header.quantization or "unknown",
        "tokenizer": header.tokenizer or "none",
        "kind": "embeds only" if header.only_embeds else "generates",
        "weights_bytes": weights,
        "tensors": len(header.tensors),
        "files": header.splits,
        "context_trained": terms.context_train,
        "vocabulary": terms.vocab_size,
        "layers": terms.layers,
        "heads": terms.heads,
        "kv_heads": terms.kv_heads,
        "head_size": terms.head_size,
        "embedding": terms.embedding_size,
        "chat_template": "tokenizer.chat_template" in header.metadata,
        "gguf_version": header.version,
    }


def _show(verdict: FitVerdict, demand: Demand) -> None:
    terms: dict[str, Callable[[DeviceNeed], str]] = {
        "share": lambda one: f"{one.share:.0%}",
        "weights": lambda one: _size(one.weights_bytes),
        "KV cache": lambda one: _size(one.kv_cache_bytes),
        "compute buffers": lambda one: _size(one.compute_bytes),
        "headroom": lambda one: _size(one.headroom_bytes),
        "needed": lambda one: _size(one.needed_bytes),
        "free now": lambda one: _size(one.available_bytes),
        "": lambda one: "fits" if one.is_enough else "too little",
    }
    table = Table("term", *(one.device_id for one in verdict.devices))
    for name, told in terms.items():
        table.add_row(name, *(told(one) for one in verdict.devices))
    out().print(table)
    out().print(
        f"one replica of {demand.slots} slots with {demand.context} tokens each, cache {demand.cache_type_k}",
        style="dim",
    )


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
