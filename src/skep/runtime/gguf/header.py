"""What a GGUF header says, as data: metadata, tensors, and the terms of a memory estimate."""

from collections.abc import Sequence
from typing import Any

import msgspec

from skep.policy.fit import CACHE_BYTES
from skep.runtime.gguf.tables import FILE_TYPES


class ArrayValue(msgspec.Struct, frozen=True, kw_only=True):
    """An array of the metadata. `items` is empty where it was long and only counted (`count`)."""

    kind: int
    count: int
    items: tuple[Any, ...] = ()


class Tensor(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tensor's description. `shape` in ggml's order (fastest first), `offset` from the start of the data.

    `size_bytes` is None where the type is newer than our table.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size_bytes: int | None


class MemoryTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit estimate needs of a model. Elements are of the cache, for one position, over all layers."""

    weights_bytes: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    embedding_size: int
    vocab_size: int
    context_train: int
    cache_elements_k: int
    cache_elements_v: int

    def cache_bytes(self, positions: int, *, type_k: str = "f16", type_v: str = "f16") -> int:
        """Return the bytes of a KV cache of `positions` over all sequences; an upper bound for sliding windows."""
        per_position = (
            self.cache_elements_k * CACHE_BYTES[type_k] + self.cache_elements_v * CACHE_BYTES[type_v]
        )
        return round(positions * per_position)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed header. `data_offset` is where tensor data starts, `file_bytes` how long the file is.

    `byte_tokens` are the tokens that read as <0xHH>.
    """

    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    byte_tokens: frozenset[int]
    alignment: int
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """The architecture's name, "" when the header has none."""
        value = self.metadata.get("general.architecture", "")
        return value if isinstance(value, str) else ""

    @property
    def name(self) -> str:
        """The model's own name, or its architecture's."""
        value = self.metadata.get("general.name", "")
        return value if isinstance(value, str) and value else self.architecture

    @property
    def is_adapter(self) -> bool:
        """True for a LoRA adapter, which is no model."""
        return self.metadata.get("general.type") == "adapter"

    @property
    def quantization(self) -> str:
        """The file type as people write it (Q4_K_M), "" when unknown."""
        value = self.metadata.get("general.file_type")
        return FILE_TYPES.get(value, "") if isinstance(value, int) else ""

    @property
    def tokenizer(self) -> str:
        """The tokenizer family (gpt2, llama, bert, t5, …), "" when the header names none."""
        value = self.metadata.get("tokenizer.ggml.model", "")
        return value if isinstance(value, str) else ""

    @property
    def has_pooling(self) -> bool:
        """True when the model says how its embeddings are pooled."""
        return f"{self.architecture}.pooling_type" in self.metadata

    @property
    def only_embeds(self) -> bool:
        """True for an encoder, which sees a whole text at once and generates nothing."""
        return self.metadata.get(f"{self.architecture}.attention.causal") is False

    @property
    def positions_max(self) -> int | None:
        """How many positions the model has learned embeddings for; None when its positions are computed."""
        learned = (tensor for tensor in self.tensors if tensor.name == "position_embd.weight")
        return next((tensor.shape[1] for tensor in learned if len(tensor.shape) > 1), None)

    @property
    def splits(self) -> int:
        """How many files the model is split over; 1 when it is not."""
        value = self.metadata.get("split.count", 1)
        return value if isinstance(value, int) and value > 1 else 1

    @property
    def weights_bytes(self) -> int:
        """Bytes of tensor data in this file."""
        return sum(tensor.size_bytes or 0 for tensor in self.tensors)

    def integer(self, key: str, default: int = 0) -> int:
        """Return the architecture's integer `key`; of an array the largest."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, ArrayValue):
            value = max((item for item in value.items if isinstance(item, int)), default=default)
        return value if isinstance(value, int) else default

    def memory_terms(self) -> MemoryTerms:
        """Return what a fit estimate needs; zero where the header says nothing."""
        layers, heads = self.integer("block_count"), self.integer("attention.head_count")
        embedding = self.integer("embedding_length")
        head_size = embedding // heads if heads else 0
        size_k = self.integer("attention.key_length", head_size)
        size_v = self.integer("attention.value_length", head_size)
        kv_heads = self._kv_heads(layers, heads)
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return MemoryTerms(
            weights_bytes=self.weights_bytes,
            layers=layers,
            heads=heads,
            kv_heads=max(kv_heads, default=0),
            head_size=size_k,
            embedding_size=embedding,
            vocab_size=tokens.count if isinstance(tokens, ArrayValue) else self.integer("vocab_size"),
            context_train=self.integer("context_length"),
            cache_elements_k=sum(kv_heads) * size_k,
            cache_elements_v=sum(kv_heads) * size_v,
        )

    def _kv_heads(self, layers: int, heads: int) -> Sequence[int]:
        value = self.metadata.get(f"{self.architecture}.attention.head_count_kv", heads)
        if isinstance(value, ArrayValue):
            return [item for item in value.items[:layers] if isinstance(item, int)]
        return [value if isinstance(value, int) else heads] * layers
