"""`skep worker`: one process that serves one model."""

import os
import sys
from typing import Annotated

import typer


def worker(
    model: Annotated[str, typer.Option(help="A GGUF file, or fake:NAME with --backend fake.")],
    worker_id: Annotated[str, typer.Option(help="How this worker is named in health and logs.")] = "worker-0",
    served_name: Annotated[
        str, typer.Option(help="The name in /v1/models; the file's stem without one.")
    ] = "",
    devices: Annotated[
        str, typer.Option(metavar="MASK", help="cpu, or devices: 0,1 · cuda:0 · GPU-<uuid>.")
    ] = "cpu",
    gpu_device: Annotated[
        int | None, typer.Option(help="Short for a mask of one device.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Share of each device, such as 0.6,0.4.")] = "",
    slots: Annotated[int, typer.Option(help="Sequences that are decoded at a time.")] = 4,
    context: Annotated[int, typer.Option(help="Tokens of each slot.")] = 4096,
    host: Annotated[str, typer.Option(help="Other than loopback only with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    listen_fd: Annotated[
        int | None, typer.Option(help="An inherited listening socket.", show_default=False)
    ] = None,
    report_fd: Annotated[
        int | None, typer.Option(help="A pipe that is told how the start goes.", show_default=False)
    ] = None,
    exit_with_fd: Annotated[
        int | None, typer.Option(help="A pipe; the worker ends when it closes.", show_default=False)
    ] = None,
    backend: Annotated[str, typer.Option(help="llama or fake.")] = "llama",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same logits, bit for bit, in any company.")
    ] = False,
    prefill_share: Annotated[
        float, typer.Option(help="Part of a batch that arriving prompts may take, 0 to 1.")
    ] = 0.5,
    max_tokens_out: Annotated[int, typer.Option(help="What /execute allows.")] = 2048,
    timeout_s: Annotated[float, typer.Option(help="A job's whole time, waiting included.")] = 300.0,
    stall_s: Annotated[float, typer.Option(help="How long a reader may read nothing.")] = 30.0,
    queue_max: Annotated[int, typer.Option(help="Jobs that may wait for a slot.")] = 64,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 lets the backend choose.")] = 0,
    gpu_layers: Annotated[int, typer.Option(help="Layers on the devices; -1 is all.")] = -1,
    batch: Annotated[int, typer.Option(help="Rows of one decode.")] = 512,
    cache_type: Annotated[str, typer.Option(help="KV cache: f32, f16, bf16, q8_0 or q4_0.")] = "f16",
    flash_attention: Annotated[str, typer.Option(help="auto, on or off.")] = "auto",
    unified_cache: Annotated[
        bool, typer.Option("--unified-cache", help="One cache that all slots share.")
    ] = False,
    lora: Annotated[
        list[str] | None, typer.Option(help="An adapter, PATH or PATH=SCALE; may be repeated.")
    ] = None,
    chat_template: Annotated[str, typer.Option(help="A jinja file, instead of the model's own.")] = "",
    embedding_context: Annotated[
        int, typer.Option(help="Longest text that is embedded; 0 is the context.")
    ] = 0,
    body_bytes_max: Annotated[int, typer.Option(help="Largest request body.")] = 8 * 1024 * 1024,
    connections_max: Annotated[int, typer.Option(help="Connections at a time.")] = 1024,
    head_s: Annotated[float, typer.Option(help="A request's head must arrive within.")] = 10.0,
    body_s: Annotated[float, typer.Option(help="A request's body must arrive within.")] = 30.0,
    idle_s: Annotated[float, typer.Option(help="An idle connection is closed after.")] = 75.0,
) -> None:
    """Serve one model over HTTP and server-sent events.

    A hive starts workers by itself; by hand it is good for trying a model out:

        skep worker --model ./model.gguf --port 8090
        curl localhost:8090/v1/models

    The bearer token comes from SKEP_WORKER_TOKEN (none: loopback only), the identity from SKEP_WORKER_NONCE.
    Exit codes: 0 after SIGTERM, 1 with one JSON line on stderr when it cannot start.
    """
    from skep.worker.main import run_worker
    from skep.worker.options import WorkerOptions

    code = run_worker(
        WorkerOptions(
            worker_id=worker_id,
            model=model,
            served_name=served_name,
            backend=backend,
            devices=devices if gpu_device is None else str(gpu_device),
            split=_shares(split),
            slots=slots,
            context=context,
            host=host,
            port=port,
            listen_fd=listen_fd,
            report_fd=report_fd,
            exit_with_fd=exit_with_fd,
            nonce=os.environ.get("SKEP_WORKER_NONCE", ""),
            token=os.environ.get("SKEP_WORKER_TOKEN") or None,
            deterministic=deterministic,
            prefill_share=prefill_share,
            max_tokens_out=max_tokens_out,
            timeout_s=timeout_s,
            stall_s=stall_s,
            queue_max=queue_max,
            threads=threads,
            gpu_layers=gpu_layers,
            batch=batch,
            cache_type=cache_type,
            flash_attention=flash_attention,
            unified_cache=unified_cache,
            lora=tuple(_adapter(one) for one in lora or ()),
            chat_template=chat_template,
            embedding_context=embedding_context,
            body_bytes_max=body_bytes_max,
            connections_max=connections_max,
            head_s=head_s,
            body_s=body_s,
            idle_s=idle_s,
        )
    )
    sys.exit(code)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(",") if one.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of shares such as 0.6,0.4") from None


def _adapter(text: str) -> tuple[str, float]:
    path, separator, scale = text.rpartition("=")
    if not separator:
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no adapter such as adapter.gguf=0.5") from None
