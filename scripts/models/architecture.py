"""The shape of the small models: llama architecture, the output head tied to the embedding."""

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Shape:
    """Sizes of one model. `rope_theta` and `epsilon` as in llama's papers."""

    embedding: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int = 8192
    rope_theta: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        """Size of one attention head."""
        return self.embedding // self.heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """GGUF tensor name → numpy shape (rows out, columns in)."""
        kv = self.kv_heads * self.head
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocabulary, self.embedding),
            "output_norm.weight": (self.embedding,),
        }
        for layer in range(self.layers):
            prefix = f"blk.{layer}."
            shapes |= {
                prefix + "attn_norm.weight": (self.embedding,),
                prefix + "attn_q.weight": (self.embedding, self.embedding),
                prefix + "attn_k.weight": (kv, self.embedding),
                prefix + "attn_v.weight": (kv, self.embedding),
                prefix + "attn_output.weight": (self.embedding, self.embedding),
                prefix + "ffn_norm.weight": (self.embedding,),
                prefix + "ffn_gate.weight": (self.feed_forward, self.embedding),
                prefix + "ffn_up.weight": (self.feed_forward, self.embedding),
                prefix + "ffn_down.weight": (self.embedding, self.feed_forward),
            }
        return shapes


TINY = Shape(embedding=128, layers=5, heads=2, kv_heads=1, feed_forward=384, vocabulary=768)
SPM = Shape(embedding=64, layers=2, heads=1, kv_heads=1, feed_forward=128, vocabulary=512)
MICRO = Shape(embedding=32, layers=1, heads=1, kv_heads=1, feed_forward=32, vocabulary=320, context=512)


def random_weights(shape: Shape, seed: int) -> Weights:
    """Return weights that mean nothing and are the same on every machine."""
    rng = random.Random(seed)
    return {
        name: np.ones(size, np.float32) if len(size) == 1 else noise(rng, size, scale=size[-1] ** -0.5)
        for name, size in shape.tensors().items()
    }


def noise(rng: random.Random, size: tuple[int, ...], *, scale: float) -> npt.NDArray[np.float32]:
    """Return evenly spread numbers of standard deviation `scale`, drawn without any function that libraries round differently."""
    count = int(np.prod(size))
    flat = np.array([rng.random() for _ in range(count)], np.float64)
    return ((flat * 2 - 1) * (3**0.5 * scale)).astype(np.float32).reshape(size)
