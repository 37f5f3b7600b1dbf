"""A BERT of some 60 KB with a WordPiece vocabulary: an encoder that only embeds. Its weights are random."""

import random
import re
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from architecture import Weights, noise
from vocabulary import CONTROL, NORMAL, UNKNOWN, Tokens
from writing import finish

EMBEDDING, FEED_FORWARD, HEADS, CONTEXT, TOKEN_TYPES = 32, 64, 2, 128, 2
VOCABULARY = 512
EPSILON = 1e-12
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SEED = 21


def wordpiece(text: str) -> Tokens:
    """Return the corpus's most frequent words, and characters for the rest; llama.cpp marks a word's start with ▁."""
    words = Counter(re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]", text.lower()))
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [f"▁{char}" for char in characters] + characters
    common = [
        f"▁{word}" for word, _ in sorted(words.items(), key=lambda pair: (-pair[1], pair[0])) if len(word) > 1
    ]
    texts = list(dict.fromkeys([*SPECIALS, *pieces, *common]))[:VOCABULARY]
    texts += [f"[unused{number}]" for number in range(VOCABULARY - len(texts))]
    types = [CONTROL if text in SPECIALS else NORMAL for text in texts]
    types[1] = UNKNOWN
    return Tokens(texts=texts, types=types, scores=[], merges=[])


def _weights() -> Weights:
    rng = random.Random(SEED)
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        weights[f"{name}.weight"] = noise(rng, (rows, columns), scale=columns**-0.5)

    def dense(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        weights[f"{name}.bias"] = noise(rng, (rows,), scale=0.02)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(EMBEDDING, np.float32)
        weights[f"{name}.bias"] = np.zeros(EMBEDDING, np.float32)

    matrix("token_embd", VOCABULARY, EMBEDDING)
    matrix("token_types", TOKEN_TYPES, EMBEDDING)
    matrix("position_embd", CONTEXT, EMBEDDING)
    norm("token_embd_norm")
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        dense(f"blk.0.{part}", EMBEDDING, EMBEDDING)
    norm("blk.0.attn_output_norm")
    dense("blk.0.ffn_up", FEED_FORWARD, EMBEDDING)
    dense("blk.0.ffn_down", EMBEDDING, FEED_FORWARD)
    norm("blk.0.layer_output_norm")
    return weights


def write_encoder(path: Path, text: str) -> None:
    """Write the encoder."""
    tokens = wordpiece(text)
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("skep-bert")
    writer.add_license("Apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)  # noqa: FBT003 - the package's own signature
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens.texts)
    writer.add_token_types(tokens.types)
    writer.add_token_type_count(TOKEN_TYPES)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    for name, values in _weights().items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    finish(writer)
