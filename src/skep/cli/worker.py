"""`skep worker`: one process that serves one model."""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

Model = Annotated[
    str,
    typer.Option(
        help="A GGUF file, hf:owner/repo/file, https://…#sha256=…, or fake:NAME with --backend fake."
    ),
]
WorkerId = Annotated[str, typer.Option(help="How this worker is named in health and logs.")]
ServedName = Annotated[str, typer.Option(help="The name in /v1/models; the file's stem without one.")]
Alias = Annotated[list[str] | None, typer.Option(help="Another name that requests may use; may be repeated.")]
Devices = Annotated[str, typer.Option(metavar="MASK", help="cpu, or devices: 0,1 · cuda:0 · GPU-<uuid>.")]
GpuDevice = Annotated[int | None, typer.Option(help="Short for a mask of one device.", show_default=False)]
Split = Annotated[str, typer.Option(help="Share of each device, such as 0.6,0.4.")]
Slots = Annotated[int, typer.Option(help="Sequences that are decoded at a time.")]
Context = Annotated[int, typer.Option(help="Tokens of each slot.")]
Host = Annotated[str, typer.Option(help="Other than loopback only with a token.")]
Port = Annotated[int, typer.Option(help="0 takes a free one.")]
ListenFd = Annotated[int | None, typer.Option(help="An inherited listening socket.", show_default=False)]
ReportFd = Annotated[
    int | None, typer.Option(help="A pipe that is told how the start goes.", show_default=False)
]
ExitWithFd = Annotated[
    int | None, typer.Option(help="A pipe; the worker ends when it closes.", show_default=False)
]
Backend = Annotated[str, typer.Option(help="llama or fake.")]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same logits, bit for bit, in any company.")
]
PrefillShare = Annotated[float, typer.Option(help="Part of a batch that arriving prompts may take, 0 to 1.")]
MaxTokensOut = Annotated[int, typer.Option(help="What /execute allows.")]
TimeoutS = Annotated[float, typer.Option(help="A job's whole time, waiting included.")]
StallS = Annotated[float, typer.Option(help="How long a reader may read nothing.")]
QueueMax = Annotated[int, typer.Option(help="Jobs that may wait for a slot.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 lets the backend choose.")]
GpuLayers = Annotated[int, typer.Option(help="Layers on the devices; -1 is all.")]
Batch = Annotated[int, typer.Option(help="Rows of one decode.")]
CacheType = Annotated[str, typer.Option(help="KV cache: f32, f16, bf16, q8_0 or q4_0.")]
FlashAttention = Annotated[str, typer.Option(help="auto, on or off.")]
UnifiedCache = Annotated[bool, typer.Option("--unified-cache", help="One cache that all slots share.")]
Lora = Annotated[list[str] | None, typer.Option(help="An adapter, PATH or PATH=SCALE; may be repeated.")]
ChatTemplate = Annotated[str, typer.Option(help="A jinja file or text, instead of the model's own.")]
EmbeddingContext = Annotated[int, typer.Option(help="Longest text that is embedded; 0 is the context.")]
BodyBytesMax = Annotated[int, typer.Option(help="Largest request body.")]
ConnectionsMax = Annotated[int, typer.Option(help="Connections at a time.")]
HeadS = Annotated[float, typer.Option(help="A request's head must arrive within.")]
BodyS = Annotated[float, typer.Option(help="A request's body must arrive within.")]
IdleS = Annotated[float, typer.Option(help="An idle connection is closed after.")]


# What a wrong command line raises; the module that it stands in differs by the library's version.
_UsageError: Any = typer.BadParameter.__base__


class OneLineCommand(TyperCommand):
    """A command whose owner is a program: also a wrong command line is one JSON line and exit code 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse."""
        try:
            return super().make_context(*args, **kwargs)
        except _UsageError as error:
            _refuse(error)

    def invoke(self, ctx: Any) -> Any:
        """Run."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _refuse(error)


def _refuse(error: Any) -> NoReturn:
    from skep.errors import InvalidConfig
    from skep.worker.report import StartReporter

    message = f"{error.format_message().rstrip('.')}; see skep worker --help"
    StartReporter(None).failed(code=InvalidConfig.code, message=message, retryable=False)
    sys.exit(1)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(cls=OneLineCommand, context_settings={"help_option_names": ["-h", "--help"]})
def worker(
    model: Model,
    worker_id: WorkerId = "worker-0",
    served_name: ServedName = "",
    alias: Alias = None,
    devices: Devices = "cpu",
    gpu_device: GpuDevice = None,
    split: Split = "",
    slots: Slots = 4,
    context: Context = 4096,
    host: Host = "127.0.0.1",
    port: Port = 0,
    listen_fd: ListenFd = None,
    report_fd: ReportFd = None,
    exit_with_fd: ExitWithFd = None,
    backend: Backend = "llama",
    deterministic: Deterministic = False,
    prefill_share: PrefillShare = 0.5,
    max_tokens_out: MaxTokensOut = 2048,
    timeout_s: TimeoutS = 300.0,
    stall_s: StallS = 30.0,
    queue_max: QueueMax = 64,
    threads: Threads = 0,
    gpu_layers: GpuLayers = -1,
    batch: Batch = 512,
    cache_type: CacheType = "f16",
    flash_attention: FlashAttention = "auto",
    unified_cache: UnifiedCache = False,
    lora: Lora = None,
    chat_template: ChatTemplate = "",
    embedding_context: EmbeddingContext = 0,
    body_bytes_max: BodyBytesMax = 8 * 1024 * 1024,
    connections_max: ConnectionsMax = 1024,
    head_s: HeadS = 10.0,
    body_s: BodyS = 30.0,
    idle_s: IdleS = 75.0,
) -> None:
    """Serve one model over HTTP and server-sent events.

    A hive starts workers by itself; by hand it is good for trying a model out:

        skep worker --model ./model.gguf --port 8090
        curl localhost:8090/v1/models

    The bearer token comes from SKEP_WORKER_TOKEN (none: loopback only), the identity from SKEP_WORKER_NONCE.
    Exit codes: 0 after SIGTERM, 1 with one JSON line on stderr when it cannot start, also for a wrong command line.
    """
    given: dict[str, Any] = locals()
    from skep.worker.main import run_worker
    from skep.worker.options import WorkerOptions

    gpu = given.pop("gpu_device")
    given["aliases"] = tuple(given.pop("alias") or ())
    given |= {
        "devices": devices if gpu is None else str(gpu),
        "split": _shares(split),
        "lora": tuple(_adapter(one) for one in lora or ()),
        "nonce": os.environ.get("SKEP_WORKER_NONCE", ""),
        "token": os.environ.get("SKEP_WORKER_TOKEN") or None,
    }
    sys.exit(run_worker(WorkerOptions(**given)))


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
