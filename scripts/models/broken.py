"""Files that are broken on purpose, each in one way, all from one model of some 30 KB that is sound."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from architecture import MICRO, Weights, random_weights
from vocabulary import Tokens, sentencepiece
from writing import spm_tokenizer, write_model

SEED = 7
_TENSOR_COUNT_AT = 8
_KEY_COUNT_AT = 16


def write_broken(folder: Path, text: str) -> None:
    """Write the sound model (micro.gguf) and every broken one into `folder`."""
    tokens = sentencepiece(text, MICRO.vocabulary)
    weights = random_weights(MICRO, SEED)

    def write(name: str, **changes: Any) -> None:
        settings: dict[str, Any] = {"weights": weights, "tokens": tokens, **changes}
        write_model(folder / name, MICRO, name="micro", tokenizer=spm_tokenizer, **settings)

    write("micro.gguf")
    write("missing-tensor.gguf", weights=_without(weights, "blk.0.ffn_up.weight"))
    write("missing-embedding.gguf", weights=_without(weights, "token_embd.weight"))
    write(
        "misshapen-tensor.gguf",
        weights=weights | {"blk.0.ffn_up.weight": weights["blk.0.ffn_up.weight"][:16]},
    )
    write(
        "nan-weights.gguf",
        weights=weights | {"output_norm.weight": np.full(MICRO.embedding, np.nan, np.float32)},
    )
    write("too-many-layers.gguf", layers=513)
    write("more-layers-than-tensors.gguf", layers=3)
    write("negative-epsilon.gguf", epsilon=-1e-5)
    write("unknown-architecture.gguf", architecture="skepformer")
    write("duplicate-token.gguf", tokens=_with_duplicate(tokens))
    _write_damaged(folder, (folder / "micro.gguf").read_bytes())


def _write_damaged(folder: Path, sound: bytes) -> None:
    damaged = {
        "empty.gguf": b"",
        "wrong-magic.gguf": b"GGUX" + sound[4:],
        "wrong-version.gguf": sound[:4] + struct.pack("<I", 99) + sound[8:],
        "truncated-header.gguf": sound[:2000],
        "truncated-data.gguf": sound[: len(sound) * 3 // 4],
        "lying-tensor-count.gguf": _patched(sound, _TENSOR_COUNT_AT, 1 << 40),
        "lying-key-count.gguf": _patched(sound, _KEY_COUNT_AT, 1 << 62),
    }
    for name, data in damaged.items():
        (folder / name).write_bytes(data)


def _patched(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<Q", value) + data[at + 8 :]


def _without(weights: Weights, name: str) -> Weights:
    return {key: value for key, value in weights.items() if key != name}


def _with_duplicate(tokens: Tokens) -> Tokens:
    return Tokens(
        texts=[*tokens.texts[:-1], tokens.texts[-2]],
        types=tokens.types,
        scores=tokens.scores,
        merges=tokens.merges,
    )
