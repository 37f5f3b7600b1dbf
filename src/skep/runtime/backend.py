"""The seam between the batching engine and whatever computes tokens.

Two implementations: `runtime.llama` (llama.cpp through ctypes) and `runtime.fake` (deterministic, no native code).
`tests/contract/test_backend.py` runs over both. A session belongs to the thread that uses it first, all but its
`interrupt`; a model's `info`, `tokenize` and `piece` only read and are safe from any thread.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from skep.runtime.sampling import SamplingParams

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How weights are brought into memory.

    `devices` holds library device indices; empty means the CPU alone. `gpu_layers` −1 means all layers.
    """

    devices: tuple[int, ...] = ()
    gpu_layers: int = -1
    split: tuple[float, ...] = ()
    use_mmap: bool = True
    use_mlock: bool = False
    check_tensors: bool = False
    lora_adapters: tuple[tuple[str, float], ...] = ()


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of one decoding context.

    `context` is tokens for each sequence; `batch_rows_max` bounds one `decode`. Threads 0 = chosen by the backend.
    """

    sequences: int = 4
    context: int = 4096
    batch_rows_max: int = 512
    threads: int = 0
    threads_batch: int = 0
    unified_cache: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    offload_cache: bool = True
    embeddings: bool = False


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model says of itself. Sizes in bytes, `context_train` in tokens.

    `only_embeds`: an encoder, which gives vectors and no tokens; its sessions are opened with `embeddings`.
    """

    name: str
    architecture: str
    quantization: str
    parameters: int
    size_bytes: int
    vocab_size: int
    context_train: int
    embedding_size: int
    layers: int
    tokenizer: str
    bos_token: int | None
    eos_token: int | None
    end_tokens: frozenset[int]
    add_bos: bool
    chat_template: str | None
    only_embeds: bool = False


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes held, as far as the backend can tell; device figures are per process."""

    ram_bytes: int
    device_bytes: int


class Row(NamedTuple):
    """One token at one position (0-based) of one sequence; `wants_logits` makes its row sampleable."""

    token: int
    position: int
    sequence: int
    wants_logits: bool


class Sampler(Protocol):
    """The sampling state of one sequence: penalties' history and a seeded generator."""

    def close(self) -> None:
        """Free the sampler; closing twice is fine."""
        ...


class BackendSession(Protocol):
    """One context: KV cache over `options.sequences` sequences."""

    options: SessionOptions

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute 1..batch_rows_max rows in one pass.

        Raises: InvalidBatch and NoCacheSlot (context unchanged), DecodeAborted (positions may have moved: read
        them), DeviceOutOfMemory (contents lost, the device survives), DecodeFailed and DeviceError (spoiled),
        WrongThread, Closed.
        """
        ...

    def make_sampler(self, params: SamplingParams, *, prompt: Sequence[int] = ()) -> Sampler:
        """Return a sampler; `prompt` primes the repetition penalties. Raises: InvalidSampling, Closed."""
        ...

    def sample(self, sampler: Any, row: int) -> int:
        """Pick and accept the next token from row index `row` of the last decode, with a sampler made here.

        Raises: InvalidBatch (the row has no logits), Closed.
        """
        ...

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return a writable view (vocab_size,) of the row's logits, valid until the next decode.

        Raises: InvalidBatch (the row has no logits), Closed.
        """
        ...

    def embedding(self, sequence: int) -> npt.NDArray[np.float32]:
        """Return a copy (embedding_size,) of the pooled embedding of a sequence. Raises: InvalidBatch, Closed."""
        ...

    def sequence_remove(self, sequence: int, start: int, end: int) -> bool:
        """Drop cache positions [start, end); −1 as `end` means to the last. False when the cache cannot.

        Raises: InvalidBatch (no such sequence or range), Closed.
        """
        ...

    def sequence_copy(self, source: int, target: int, start: int, end: int) -> None:
        """Share cache positions [start, end) of `source` with `target`.

        Raises: InvalidBatch (no such sequence or range, or partial with a cache that is not unified), Closed.
        """
        ...

    def sequence_position_max(self, sequence: int) -> int:
        """Return the last cached position, −1 when empty. Raises: Closed."""
        ...

    def interrupt(self) -> None:
        """Make the running decode raise DecodeAborted soon. Safe from any thread; cleared by `resume`."""
        ...

    def resume(self) -> None:
        """Allow decoding again after an interrupt."""
        ...

    def memory(self) -> MemoryUse:
        """Return what this context holds."""
        ...

    def close(self) -> None:
        """Free the context; closing twice is fine."""
        ...


class BackendModel(Protocol):
    """Loaded weights and their tokenizer. Outlives its sessions, or refuses to close."""

    info: ModelInfo

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Return token ids. `parse_special` reads control tokens out of the text. Raises: Closed."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token; control tokens give b"" unless `special`. Raises: InvalidToken, Closed."""
        ...

    def open_session(self, options: SessionOptions) -> BackendSession:
        """Return a new context. Raises: InsufficientMemory, InvalidInput (absurd sizes), Closed."""
        ...

    def memory(self) -> MemoryUse:
        """Return what the weights hold."""
        ...

    def close(self) -> None:
        """Free the weights; closing twice is fine. Raises: ModelInUse while a session is open."""
        ...


class Backend(Protocol):
    """A way to load models."""

    name: str

    def load(
        self, path: Path, options: LoadOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> BackendModel:
        """Load a GGUF file; `on_progress` gets 0..1.

        Raises: ModelNotFound, ModelLoadFailed and its kinds, InsufficientMemory, DeviceMissing.
        """
        ...
