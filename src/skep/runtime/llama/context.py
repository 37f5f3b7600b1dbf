"""From session options to a C context, and the proof that the library understood them."""

import ctypes
import re
from typing import Any, Final

import msgspec

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import AbiMismatch, DeviceOutOfMemory, InsufficientMemory
from skep.runtime.backend import CacheType, MemoryUse, SessionOptions
from skep.runtime.gguf import MemoryTerms
from skep.runtime.llama import memory
from skep.runtime.llama.budget import check_ram
from skep.runtime.llama.library import Library
from skep.runtime.llama.log import compute_failure_kind
from skep.runtime.llama.threads import THREADS_MAX, default_threads

SEQUENCES_MAX: Final = 256  # llama.cpp, LLAMA_MAX_SEQ.
POSITIONS_MAX: Final = 1 << 24  # Over all sequences. The library searches for ever when asked for 2e9.
BATCH_ROWS_MAX: Final = 1 << 16
# One pass over the weights. Each row of a pass attends over all of the pass, so that larger ones waste more on a CPU; a
# device wants more to do at once.
_MICRO_BATCH_ROWS, _MICRO_BATCH_ROWS_DEVICE = 256, 512

_CACHE_TYPES: Final[dict[CacheType, int]] = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q8_0": 8,
    "bf16": 30,
}  # ggml.h, ggml_type
_FLASH_ATTENTION: Final = {"auto": -1, "off": 0, "on": 1}
_HOST_BUFFER: Final = re.compile(r"\bCPU|_Host\b")
_POOLING_MEAN, _POOLING_RANK = 1, 4  # llama.h, llama_pooling_type


class CacheShape(msgspec.Struct, frozen=True, kw_only=True):
    """What of a loaded model a context depends on. `has_pooling`: the file says how embeddings are pooled."""

    terms: MemoryTerms
    has_pooling: bool
    has_devices: bool


class OpenedContext(msgspec.Struct, frozen=True, kw_only=True):
    """A C context and what the library said that it holds."""

    handle: int
    memory: MemoryUse


def open_context(library: Library, model: int, options: SessionOptions, shape: CacheShape) -> OpenedContext:
    """Return a new context. Raises: InvalidInput, InsufficientMemory, DeviceOutOfMemory, DeviceError, AbiMismatch."""
    _check_options(options)
    needed = shape.terms.cache_bytes(
        options.context * options.sequences, type_k=options.cache_type_k, type_v=options.cache_type_v
    )
    if not (shape.has_devices and options.offload_cache):
        check_ram(needed, what=f"a cache of {options.sequences} x {options.context} tokens")
    params = _params(library.api, options, shape)
    library.has_computed = True
    with library.log.lock:
        mark = library.log.mark()
        handle: int | None = library.api.llama_init_from_model(model, params)
        if not handle:
            raise _refused(library.log.complaint(mark), needed, has_devices=shape.has_devices)
        held = memory.buffers(library.log.since(mark))
    try:
        _check_understood(library, handle, params, options)
    except SkepError:
        library.api.llama_free(handle)
        raise
    if not held.ram_bytes and not held.device_bytes:
        held = MemoryUse(ram_bytes=needed, device_bytes=0)
    return OpenedContext(handle=handle, memory=held)


def _check_options(options: SessionOptions) -> None:
    bounds = {
        "sequences": (options.sequences, 1, SEQUENCES_MAX),
        "context": (options.context, 1, POSITIONS_MAX),
        "context of all sequences": (options.context * options.sequences, 1, POSITIONS_MAX),
        "batch_rows_max": (options.batch_rows_max, 1, BATCH_ROWS_MAX),
        "threads": (options.threads, 0, THREADS_MAX),
        "threads_batch": (options.threads_batch, 0, THREADS_MAX),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise InvalidInput(
                f"{name} is {value}; it must be between {low} and {high}", field=name, value=value
            )
    for name in ("cache_type_k", "cache_type_v"):
        if getattr(options, name) not in _CACHE_TYPES:
            known = ", ".join(_CACHE_TYPES)
            raise InvalidInput(f"{name} is {getattr(options, name)!r}; it must be one of {known}", field=name)
    if options.flash_attention not in _FLASH_ATTENTION:
        raise InvalidInput(f"flash_attention is {options.flash_attention!r}; it must be auto, on or off")


def _params(api: Any, options: SessionOptions, shape: CacheShape) -> Any:
    params = api.llama_context_default_params()
    threads = options.threads or default_threads()
    # The library cuts n_batch down to n_ctx, so a short context still gets room for one whole batch.
    params.n_ctx = max(options.context * options.sequences, options.batch_rows_max)
    params.n_batch = options.batch_rows_max
    # Pooling needs a sequence within one micro-batch.
    rows_max = _MICRO_BATCH_ROWS_DEVICE if shape.has_devices else _MICRO_BATCH_ROWS
    params.n_ubatch = options.batch_rows_max if options.embeddings else min(options.batch_rows_max, rows_max)
    params.n_seq_max = options.sequences
    params.n_threads = threads
    params.n_threads_batch = options.threads_batch or threads
    params.type_k = _CACHE_TYPES[options.cache_type_k]
    params.type_v = _CACHE_TYPES[options.cache_type_v]
    params.flash_attn_type = _FLASH_ATTENTION[options.flash_attention]
    params.offload_kqv = options.offload_cache and shape.has_devices
    params.op_offload = shape.has_devices
    params.kv_unified = options.unified_cache
    params.no_perf = True
    params.embeddings = options.embeddings
    if options.embeddings and not shape.has_pooling:
        params.pooling_type = _POOLING_MEAN
    return params


def _check_understood(library: Library, handle: int, params: Any, options: SessionOptions) -> None:
    """Read back what was set: a field that lay elsewhere in this build shows here."""
    api = library.api
    asked: dict[str, int] = {
        "n_seq_max": params.n_seq_max,
        "n_batch": params.n_batch,
        "n_ubatch": params.n_ubatch,
        "n_threads": params.n_threads,
        "n_threads_batch": params.n_threads_batch,
    }
    got: dict[str, int] = {name: getattr(api, f"llama_{name}")(handle) for name in asked}
    wrong = {name: (asked[name], got[name]) for name in asked if asked[name] != got[name]}
    n_ctx, n_ctx_seq = api.llama_n_ctx(handle), api.llama_n_ctx_seq(handle)
    if options.sequences > 1 and options.unified_cache != (n_ctx_seq == n_ctx):
        wrong["kv_unified"] = (int(options.unified_cache), int(n_ctx_seq == n_ctx))
    if n_ctx_seq < options.context:
        wrong["n_ctx_seq"] = (options.context, n_ctx_seq)
    if wrong:
        text = ", ".join(f"{name}: set {a}, read {b}" for name, (a, b) in wrong.items())
        raise AbiMismatch(f"{library.candidate.path} did not take its options ({text})", wrong=wrong)
    if options.embeddings and api.llama_pooling_type(handle) == _POOLING_RANK:
        raise InvalidInput("this model ranks, it does not embed; use an embedding model")


def _refused(text: str, needed_bytes: int, *, has_devices: bool) -> SkepError:
    """Return the error that the log of a context that did not open means."""
    kind = compute_failure_kind(text)
    if kind is None:
        return InvalidInput(
            f"the context could not be opened: {text or 'the library gave no reason'}", log=text
        )
    if kind is DeviceOutOfMemory and (not has_devices or _HOST_BUFFER.search(text)):
        kind = InsufficientMemory
    return kind(f"the context could not be opened: {text}", needed_bytes=needed_bytes, log=text)


def attach_adapters(library: Library, context: int, adapters: tuple[tuple[int, float], ...]) -> None:
    """Make the context use these LoRA adapters at these scales. Raises: InvalidInput."""
    if not adapters:
        return
    handles = (ctypes.c_void_p * len(adapters))(*(handle for handle, _ in adapters))
    scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
    if library.api.llama_set_adapters_lora(context, handles, len(adapters), scales):
        raise InvalidInput("the LoRA adapters do not fit this model")
