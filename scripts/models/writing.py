"""Writes GGUF files with the `gguf` package: models of a shape and a vocabulary, and a LoRA adapter."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from architecture import Shape, Weights
from vocabulary import END_OF_TEXT, IM_END, Tokens

Edit = Callable[[gguf.GGUFWriter], None]

_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def write_model(
    path: Path,
    shape: Shape,
    tokens: Tokens,
    weights: Weights,
    *,
    name: str,
    file_type: str = "f16",
    template: str | None = None,
    tokenizer: Callable[[gguf.GGUFWriter, Tokens], None],
    layers: int | None = None,
    epsilon: float | None = None,
    architecture: str = "llama",
) -> None:
    """Write a model. `layers`, `epsilon` and `architecture` may lie, for files that are broken on purpose."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name(name)
    writer.add_license("Apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers if layers is None else layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon if epsilon is None else epsilon)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(_FILE_TYPES[file_type])
    tokenizer(writer, tokens)
    if template is not None:
        writer.add_chat_template(template)
    for tensor, values in weights.items():
        _add(writer, tensor, values, file_type)
    finish(writer)


def bpe_tokenizer(writer: gguf.GGUFWriter, tokens: Tokens) -> None:
    """Describe GPT-2's byte-level BPE."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens.texts)
    writer.add_token_types(tokens.types)
    writer.add_token_merges(tokens.merges)
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_eos_token_id(tokens.index(IM_END))
    writer.add_pad_token_id(tokens.index(END_OF_TEXT))
    writer.add_add_bos_token(False)  # noqa: FBT003 - the package's own signature


def spm_tokenizer(writer: gguf.GGUFWriter, tokens: Tokens) -> None:
    """Describe a SentencePiece vocabulary, as llama 1 and 2 had it."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens.texts)
    writer.add_token_scores(tokens.scores)
    writer.add_token_types(tokens.types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_adapter(path: Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], *, alpha: float) -> None:
    """Write a LoRA adapter: tensor name → (a: rank x in, b: out x rank)."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, (a, b) in factors.items():
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, np.float32))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, np.float32))
    finish(writer)


def read_weights(path: Path) -> Weights:
    """Return the tensors of a file of ours (F16 and F32), as float32."""
    reader = gguf.GGUFReader(path)
    return {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, file_type: str) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    elif file_type == "f16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything that was added, and close."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
