"""How a worker is started: what `skep worker` parses into, and nothing else reads."""

from typing import get_args

import msgspec

from skep.errors import InvalidConfig
from skep.runtime.backend import CacheType

CONTEXT_MAX = 4 * 1024 * 1024
SLOTS_MAX = 256
WORKER_ID_CHARS_MAX = 128


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. Times in seconds; `context` is tokens for each slot.

    `listen_fd` (an inherited listening socket) excludes `port`. `nonce` proves whose process it is, `token` is what
    clients must show. `split` is the share of each device, in the order of the mask.
    """

    worker_id: str
    model: str
    served_name: str = ""
    aliases: tuple[str, ...] = ()
    backend: str = "llama"
    devices: str = "cpu"
    split: tuple[float, ...] = ()
    slots: int = 4
    context: int = 4096
    host: str = "127.0.0.1"
    port: int = 0
    listen_fd: int | None = None
    report_fd: int | None = None
    exit_with_fd: int | None = None
    nonce: str = ""
    token: str | None = None
    deterministic: bool = False
    prefill_share: float = 0.5
    max_tokens_out: int = 2048
    timeout_s: float = 300.0
    stall_s: float = 30.0
    queue_max: int = 64
    start_s: float = 600.0
    stop_s: float = 4.0
    threads: int = 0
    gpu_layers: int = -1
    batch: int = 512
    cache_type: str = "f16"
    flash_attention: str = "auto"
    unified_cache: bool = False
    lora: tuple[tuple[str, float], ...] = ()
    chat_template: str = ""
    embedding_context: int = 0
    body_bytes_max: int = 8 * 1024 * 1024
    connections_max: int = 1024
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0


def check(options: WorkerOptions) -> WorkerOptions:
    """Return `options` unchanged. Raises: InvalidConfig with everything that is wrong."""
    wrong = {
        f"--worker-id must be 1 to {WORKER_ID_CHARS_MAX} characters": not 1
        <= len(options.worker_id)
        <= WORKER_ID_CHARS_MAX,
        "--model must name a model": not options.model,
        "--backend must be llama or fake": options.backend not in ("llama", "fake"),
        "--flash-attention must be auto, on or off": options.flash_attention not in ("auto", "on", "off"),
        "--cache-type must be f32, f16, bf16, q8_0 or q4_0": options.cache_type not in get_args(CacheType),
        f"--slots must be between 1 and {SLOTS_MAX}": not 1 <= options.slots <= SLOTS_MAX,
        f"--context must be between 8 and {CONTEXT_MAX}": not 8 <= options.context <= CONTEXT_MAX,  # noqa: PLR2004 - a prompt and an answer
        "--prefill-share must be between 0 and 1": not 0 <= options.prefill_share <= 1,
        "--max-tokens-out must be between 1 and 2048": not 1 <= options.max_tokens_out <= 2048,  # noqa: PLR2004 - the spec's
        "--timeout-s and --stall-s must be positive": options.timeout_s <= 0 or options.stall_s <= 0,
        "--queue-max must not be negative": options.queue_max < 0,
        "--port and --listen-fd exclude each other": bool(options.port) and options.listen_fd is not None,
        "--port must be between 0 and 65535": not 0 <= options.port <= 65535,  # noqa: PLR2004 - TCP
        "--split must hold positive shares that sum to 1": bool(options.split)
        and (min(options.split) <= 0 or abs(sum(options.split) - 1) > 1e-6),  # noqa: PLR2004 - rounding
    }
    if found := [text for text, is_wrong in wrong.items() if is_wrong]:
        raise InvalidConfig("; ".join(found))
    return options
