"""The C structures of llama.h that we pass by value, and what a known build puts into them by default.

Source: llama.h of llama.cpp 0c1e57098. A build whose structures have another size is refused (`probe.py`); the bytes
that differ between the two known context layouts are opaque, and never written: a setter reaches what lies there.
"""

import ctypes
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from typing import Any, Final

LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
ProgressCallback = ctypes.CFUNCTYPE(c_bool, c_float, c_void_p)


class ModelParams(Structure):
    """llama_model_params. 78 bytes are written; the compiler pads it to 80."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


def _context_params(name: str, *, opaque_bytes: int) -> type[Structure]:
    """Return a llama_context_params whose abort callback (and what a build added beside it) is opaque."""
    fields: list[tuple[str, Any]] = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("_opaque", c_uint8 * opaque_bytes),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]
    return type(name, (Structure,), {"_fields_": fields})


CONTEXT_LAYOUTS: Final = {
    160: _context_params("ContextParams160", opaque_bytes=16),
    168: _context_params("ContextParams168", opaque_bytes=24),
}
MODEL_LAYOUTS: Final[dict[int, type[Structure]]] = {78: ModelParams}
BATCH_BYTES: Final = 56

CONTEXT_DEFAULTS: Final[dict[str, object]] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "samplers": None,
    "n_samplers": 0,
    "ctx_other": None,
}
MODEL_DEFAULTS: Final[dict[str, object]] = {
    "devices": None,
    "tensor_buft_overrides": None,
    "split_mode": 1,
    "main_gpu": 0,
    "tensor_split": None,
    "progress_callback": None,
    "kv_overrides": None,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_alloc": False,
}


class Batch(Structure):
    """llama_batch: parallel arrays of `n_tokens` rows, owned by whoever made them."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class ChainParams(Structure):
    """llama_sampler_chain_params."""

    _fields_ = (("no_perf", c_bool),)


class LogitBias(Structure):
    """llama_logit_bias."""

    _fields_ = (("token", c_int32), ("bias", c_float))


class TokenData(Structure):
    """llama_token_data."""

    _fields_ = (("id", c_int32), ("logit", c_float), ("p", c_float))


class TokenDataArray(Structure):
    """llama_token_data_array."""

    _fields_ = (
        ("data", POINTER(TokenData)),
        ("size", c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", c_bool),
    )
