"""What a header must hold so that llama.cpp loads it or refuses it, and never aborts the process.

Measured over header mutations: duplicate vocabulary text (found while parsing), a layer count outside 1..512, a
negative norm epsilon and a tensor of a type that cannot be computed with abort; so do, by its source (llama-model.cpp,
gguf.cpp), contradicting expert counts, an unknown rope scaling and an empty key. The rest here gives a precise error before
gigabytes are read.
"""

import math
from typing import Any, Final

from skep.errors.runtime import GgufMalformed, GgufTruncated, ModelLoadFailed, TensorMissing
from skep.runtime.gguf.header import ArrayValue, Header, Tensor
from skep.runtime.gguf.parse import VOCABULARY_KEY
from skep.runtime.gguf.tables import F32, TENSOR_TYPES
from skep.runtime.gguf.vocabulary import check_vocabulary

LAYERS_MAX: Final = 512  # llama-hparams.h, LLAMA_MAX_LAYERS.
EXPERTS_MAX: Final = 1024  # llama-hparams.h, LLAMA_MAX_EXPERTS.
CONTEXT_TRAIN_MAX: Final = 1 << 28
WIDTH_MAX: Final = 1 << 24
VOCABULARY_MAX: Final = 1 << 24

_RANGES: Final = {
    "block_count": (1, LAYERS_MAX),
    "context_length": (1, CONTEXT_TRAIN_MAX),
    "embedding_length": (1, WIDTH_MAX),
    "feed_forward_length": (0, WIDTH_MAX),
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "rope.dimension_count": (0, 1 << 16),
    "vocab_size": (1, VOCABULARY_MAX),
    "pooling_type": (-1, 4),
    "nextn_predict_layers": (0, LAYERS_MAX),
    "expert_count": (0, EXPERTS_MAX),
    "expert_group_count": (0, EXPERTS_MAX),
    "expert_group_used_count": (0, EXPERTS_MAX),
    "expert_used_count": (0, EXPERTS_MAX),
}
_REQUIRED: Final = ("block_count", "context_length", "embedding_length")
_EPSILONS: Final = (
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.group_norm_epsilon",
)
_NOT_WEIGHTS: Final = frozenset({9, 15, 24, 25, 26, 27, 28})
"""Q8_1 and Q8_K, which hold activations; I8 to I64; F64. ggml-cpu.c has no product with them."""
_ADDED: Final = (".bias", "_norm.weight", "token_types.weight")
"""Vectors by any shape, and a table whose row is added as it is; convert_hf_to_gguf.py writes them as F32."""
_ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")


def check_model(header: Header) -> None:
    """Check a model's header. Raises: ModelLoadFailed (an adapter), GgufMalformed, GgufTruncated, TensorMissing."""
    if header.is_adapter:
        raise ModelLoadFailed("the file is a LoRA adapter, not a model; give it as an adapter of a model")
    _check_architecture(header)
    _check_numbers(header)
    _check_experts(header)
    _check_rope(header)
    check_vocabulary(header)
    check_tensors(header)
    if header.splits == 1:
        _check_blocks(header)


def check_adapter(header: Header) -> None:
    """Check a LoRA adapter's header. Raises: ModelLoadFailed (no adapter), GgufMalformed, GgufTruncated."""
    if not header.is_adapter:
        raise ModelLoadFailed("the file is not a LoRA adapter (its general.type is not `adapter`)")
    _check_architecture(header)
    check_tensors(header)


def check_tensors(header: Header) -> None:
    """Check that every tensor can be computed with, and lies inside the file. Raises: GgufMalformed, GgufTruncated."""
    for tensor in header.tensors:
        _check_type(tensor)
        if tensor.offset % header.alignment:
            raise GgufMalformed(
                f"the tensor {tensor.name!r} starts at an unaligned offset", tensor=tensor.name
            )
        end = header.data_offset + tensor.offset + (tensor.size_bytes or 1)
        if end > header.file_bytes:
            raise GgufTruncated(
                f"the data of {tensor.name!r} ends at byte {end}, the file at {header.file_bytes}; fetch it again",
                tensor=tensor.name,
                end=end,
                size=header.file_bytes,
            )


def _check_type(tensor: Tensor) -> None:
    """Refuse what a kernel would abort on: vectors are added and multiplied as F32 alone, and no model's weights are integers."""
    is_added = len(tensor.shape) == 1 or tensor.name.endswith(_ADDED)
    if tensor.kind in _NOT_WEIGHTS or (is_added and tensor.kind != F32):
        name = TENSOR_TYPES[tensor.kind][0] if tensor.kind in TENSOR_TYPES else f"type {tensor.kind}"
        raise GgufMalformed(
            f"the tensor {tensor.name!r} is {name}, which nothing computes with there; convert the model again",
            tensor=tensor.name,
            kind=name,
        )


def _check_architecture(header: Header) -> None:
    if not header.architecture:
        raise GgufMalformed("the header names no general.architecture")


def _check_numbers(header: Header) -> None:
    for key, (low, high) in _RANGES.items():
        name = f"{header.architecture}.{key}"
        if name not in header.metadata:
            if key in _REQUIRED:
                raise GgufMalformed(f"the header has no {name}", key=name)
            continue
        for value in _values(header.metadata[name]):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise GgufMalformed(f"{name} is {value!r}, not within {low}..{high}", key=name, value=value)
    for key in _EPSILONS:
        name = f"{header.architecture}.{key}"
        for value in _values(header.metadata.get(name, 0.0)):
            if not isinstance(value, float) or not math.isfinite(value) or value < 0:
                raise GgufMalformed(f"{name} is {value!r}, not a number of at least 0", key=name, value=value)


def _check_experts(header: Header) -> None:
    experts, used = header.integer("expert_count"), header.integer("expert_used_count")
    groups, groups_used = header.integer("expert_group_count"), header.integer("expert_group_used_count")
    is_sound = used <= experts and (used > 0) == (experts > 0) and (groups < experts or groups == 0)
    if groups > 1:
        is_sound = is_sound and experts % groups == 0 and 0 < groups_used < groups
    if not is_sound:
        raise GgufMalformed(
            f"{used} of {experts} experts in {groups_used} of {groups} groups is impossible",
            experts=experts,
            used=used,
        )
    if header.integer("nextn_predict_layers") > header.integer("block_count"):
        raise GgufMalformed("more prediction layers than layers", key="nextn_predict_layers")


def _check_rope(header: Header) -> None:
    name = f"{header.architecture}.rope.scaling.type"
    value = header.metadata.get(name, "none")
    if value not in _ROPE_SCALINGS:
        raise GgufMalformed(
            f"{name} is {value!r}, not one of {', '.join(_ROPE_SCALINGS)}", key=name, value=value
        )


def _check_blocks(header: Header) -> None:
    """Check the tensors that every model with a vocabulary has: the embedding, and something in every block."""
    names = {tensor.name: tensor for tensor in header.tensors}
    tokens = header.metadata.get(VOCABULARY_KEY)
    if tokens is not None:
        _check_embedding(header, names.get("token_embd.weight"), vocab_size=tokens.count)
    blocks = {name.split(".", 2)[1] for name in names if name.startswith("blk.")}
    for index in range(header.integer("block_count")):
        if blocks and str(index) not in blocks:
            raise TensorMissing(f"no tensor of block {index} is in the file", tensor=f"blk.{index}")


def _check_embedding(header: Header, tensor: Tensor | None, *, vocab_size: int) -> None:
    if tensor is None:
        raise TensorMissing("the tensor 'token_embd.weight' is missing", tensor="token_embd.weight")
    wanted = (header.integer("embedding_length"), vocab_size)
    if tensor.shape != wanted:
        raise TensorMissing(
            f"the tensor {tensor.name!r} is {tensor.shape}, not {wanted}",
            tensor=tensor.name,
            shape=tensor.shape,
        )


def _values(value: Any) -> tuple[Any, ...]:
    return value.items if isinstance(value, ArrayValue) else (value,)
