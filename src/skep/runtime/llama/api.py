"""Every function of llama.cpp that we call, with its C signature, and how it is called.

A call through `CDLL` drops the GIL: right for what takes long. Short calls keep it (`PyDLL`), because taking it back
from a busy Python thread costs up to a switch interval (5 ms): with a busy thread an 8-sequence step went from 0.87 to
17.4 ms when all calls dropped it, and to 6.2 ms this way. An engine that decodes beside busy Python threads also calls
`sys.setswitchinterval(5e-4)`, which brings that to 1.4 ms.
"""

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Final, NamedTuple

from skep.errors.runtime import AbiMismatch
from skep.runtime.llama import layout
from skep.runtime.llama.probe import Layout, StructWriter

_MODEL_PARAMS = "model_params"
_CONTEXT_PARAMS = "context_params"


class Function(NamedTuple):
    """One C function. A string among the types stands for a structure that the probe chose."""

    result: Any
    arguments: tuple[Any, ...] = ()
    releases_gil: bool = False
    is_optional: bool = False


_PTR = c_void_p
_GET_U32 = Function(c_uint32, (_PTR,))
_GET_I32 = Function(c_int32, (_PTR,))
_FREE = Function(None, (_PTR,), releases_gil=True)

FUNCTIONS: Final[dict[str, Function]] = {
    # The process.
    "llama_backend_init": Function(None, releases_gil=True),
    "llama_log_set": Function(None, (_PTR, _PTR)),
    "llama_print_system_info": Function(c_char_p),
    "llama_version": Function(c_char_p, is_optional=True),
    "llama_max_devices": Function(c_size_t),
    "llama_supports_gpu_offload": Function(c_bool),
    "llama_load_mode_name": Function(c_char_p, (c_int,), is_optional=True),
    "llama_flash_attn_type_name": Function(c_char_p, (c_int,), is_optional=True),
    # Devices.
    "ggml_backend_load_all_from_path": Function(None, (c_char_p,), releases_gil=True),
    "ggml_backend_dev_count": Function(c_size_t),
    "ggml_backend_dev_get": Function(_PTR, (c_size_t,)),
    "ggml_backend_dev_name": Function(c_char_p, (_PTR,)),
    "ggml_backend_dev_description": Function(c_char_p, (_PTR,)),
    "ggml_backend_dev_type": Function(c_int, (_PTR,)),
    "ggml_backend_dev_memory": Function(None, (_PTR, POINTER(c_size_t), POINTER(c_size_t))),
    # The model.
    "llama_model_default_params": Function(_MODEL_PARAMS),
    "llama_model_load_from_file": Function(_PTR, (c_char_p, _MODEL_PARAMS), releases_gil=True),
    "llama_model_free": _FREE,
    "llama_model_n_ctx_train": _GET_I32,
    "llama_model_n_embd": _GET_I32,
    "llama_model_n_layer": _GET_I32,
    "llama_model_n_head": _GET_I32,
    "llama_model_n_head_kv": _GET_I32,
    "llama_model_n_params": Function(c_uint64, (_PTR,)),
    "llama_model_size": Function(c_uint64, (_PTR,)),
    "llama_model_desc": Function(c_int32, (_PTR, c_char_p, c_size_t)),
    "llama_model_meta_val_str": Function(c_int32, (_PTR, c_char_p, c_char_p, c_size_t)),
    "llama_model_chat_template": Function(c_char_p, (_PTR, c_char_p)),
    "llama_model_has_encoder": Function(c_bool, (_PTR,)),
    "llama_model_has_decoder": Function(c_bool, (_PTR,)),
    "llama_model_is_recurrent": Function(c_bool, (_PTR,)),
    "llama_adapter_lora_init": Function(_PTR, (_PTR, c_char_p), releases_gil=True),
    "llama_adapter_lora_free": _FREE,
    # The vocabulary.
    "llama_model_get_vocab": Function(_PTR, (_PTR,)),
    "llama_vocab_type": Function(c_int, (_PTR,)),
    "llama_vocab_n_tokens": _GET_I32,
    "llama_vocab_bos": _GET_I32,
    "llama_vocab_eos": _GET_I32,
    "llama_vocab_get_add_bos": Function(c_bool, (_PTR,)),
    "llama_vocab_is_eog": Function(c_bool, (_PTR, c_int32)),
    "llama_vocab_is_control": Function(c_bool, (_PTR, c_int32)),
    "llama_tokenize": Function(
        c_int32, (_PTR, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool), releases_gil=True
    ),
    "llama_token_to_piece": Function(c_int32, (_PTR, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    # The context.
    "llama_context_default_params": Function(_CONTEXT_PARAMS),
    "llama_init_from_model": Function(_PTR, (_PTR, _CONTEXT_PARAMS), releases_gil=True),
    "llama_free": _FREE,
    "llama_set_abort_callback": Function(None, (_PTR, _PTR, _PTR)),
    "llama_set_n_threads": Function(None, (_PTR, c_int32, c_int32)),
    "llama_set_adapters_lora": Function(c_int32, (_PTR, POINTER(c_void_p), c_size_t, POINTER(c_float))),
    "llama_n_ctx": _GET_U32,
    "llama_n_ctx_seq": _GET_U32,
    "llama_n_batch": _GET_U32,
    "llama_n_ubatch": _GET_U32,
    "llama_n_seq_max": _GET_U32,
    "llama_n_threads": _GET_I32,
    "llama_n_threads_batch": _GET_I32,
    "llama_pooling_type": Function(c_int, (_PTR,)),
    "llama_decode": Function(c_int32, (_PTR, layout.Batch), releases_gil=True),
    "llama_encode": Function(c_int32, (_PTR, layout.Batch), releases_gil=True),
    "llama_synchronize": Function(None, (_PTR,), releases_gil=True),
    "llama_get_logits_ith": Function(_PTR, (_PTR, c_int32)),
    "llama_get_embeddings_seq": Function(_PTR, (_PTR, c_int32)),
    "llama_get_embeddings_ith": Function(_PTR, (_PTR, c_int32)),
    # The cache.
    "llama_get_memory": Function(_PTR, (_PTR,)),
    "llama_memory_seq_rm": Function(c_bool, (_PTR, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": Function(None, (_PTR, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_max": Function(c_int32, (_PTR, c_int32)),
    # Samplers.
    "llama_sampler_chain_init": Function(_PTR, (layout.ChainParams,)),
    "llama_sampler_chain_add": Function(None, (_PTR, _PTR)),
    "llama_sampler_free": Function(None, (_PTR,)),
    "llama_sampler_accept": Function(None, (_PTR, c_int32)),
    "llama_sampler_apply": Function(None, (_PTR, POINTER(layout.TokenDataArray))),
    "llama_sampler_sample": Function(c_int32, (_PTR, _PTR, c_int32)),
    "llama_sampler_init_greedy": Function(_PTR),
    "llama_sampler_init_dist": Function(_PTR, (c_uint32,)),
    "llama_sampler_init_temp": Function(_PTR, (c_float,)),
    "llama_sampler_init_top_k": Function(_PTR, (c_int32,)),
    "llama_sampler_init_top_p": Function(_PTR, (c_float, c_size_t)),
    "llama_sampler_init_min_p": Function(_PTR, (c_float, c_size_t)),
    "llama_sampler_init_logit_bias": Function(_PTR, (c_int32, c_int32, POINTER(layout.LogitBias))),
    "llama_sampler_init_penalties": Function(_PTR, (c_int32, c_int32, c_float, c_float, c_float)),
}


class Api:
    """The functions of one library as attributes, by their C names; an optional one that is missing is None."""

    def __init__(self, *, path: str, dropping: ctypes.CDLL, keeping: ctypes.CDLL, layout: Layout) -> None:
        self.layout = layout
        structures = {_MODEL_PARAMS: layout.model_params, _CONTEXT_PARAMS: layout.context_params}
        for name, function in FUNCTIONS.items():
            bound = _bind(dropping if function.releases_gil else keeping, name, function, structures)
            if bound is None and not function.is_optional:
                raise AbiMismatch(
                    f"{path} does not export {name}; use a library provider that skep knows",
                    path=path,
                    symbol=name,
                )
            setattr(self, name, bound)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def struct_writer(library: ctypes.CDLL, name: str, *, path: str, zeros: tuple[Any, ...] = ()) -> StructWriter:
    """Return `name` as a function of the address to which it writes its structure.

    `zeros` are the C types of its arguments, which are passed as 0. Raises: AbiMismatch.
    """
    try:
        raw = library[name]
    except AttributeError:
        raise AbiMismatch(
            f"{path} does not export {name}; is it a llama.cpp library?", path=path, symbol=name
        ) from None
    raw.restype, raw.argtypes = None, [c_void_p, *zeros]
    return lambda address: raw(address, *(0 for _ in zeros))


def _bind(library: ctypes.CDLL, name: str, function: Function, structures: dict[str, Any]) -> Any:
    try:
        bound = library[name]
    except AttributeError:
        return None
    bound.restype = (
        structures.get(function.result, function.result)
        if isinstance(function.result, str)
        else function.result
    )
    bound.argtypes = [structures[kind] if isinstance(kind, str) else kind for kind in function.arguments]
    return bound
