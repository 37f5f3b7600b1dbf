"""What a header's vocabulary must hold so that llama.cpp can turn any text into tokens and back.

Its tokenizers throw C++ exceptions that nothing catches: on a byte token whose text is no <0xHH>, and, for
SentencePiece, on a character without byte tokens to fall back to (llama-vocab.cpp, token_to_byte and byte_to_token).
"""

from typing import Final

from skep.errors.runtime import GgufMalformed
from skep.runtime.gguf.header import ArrayValue, Header
from skep.runtime.gguf.parse import TOKEN_TYPES_KEY, VOCABULARY_KEY

_SCORES_KEY: Final = "tokenizer.ggml.scores"
_BYTE: Final = 6  # llama.h, LLAMA_TOKEN_TYPE_BYTE.
_BYTES: Final = 256
_SENTENCEPIECE: Final = "llama"
_WORDPIECE: Final = "bert"


def check_vocabulary(header: Header) -> None:
    """Check tokens, their scores and types. Raises: GgufMalformed."""
    tokens = header.metadata.get(VOCABULARY_KEY)
    if tokens is None:
        raise GgufMalformed(
            f"the header has no {VOCABULARY_KEY}: skep needs the model's tokenizer", key=VOCABULARY_KEY
        )
    if not isinstance(tokens, ArrayValue) or tokens.count == 0:
        raise GgufMalformed(f"{VOCABULARY_KEY} is no list of tokens", key=VOCABULARY_KEY)
    for key in (_SCORES_KEY, TOKEN_TYPES_KEY):
        value = header.metadata.get(key)
        if value is not None and (not isinstance(value, ArrayValue) or value.count < tokens.count):
            raise GgufMalformed(
                f"{key} does not have one entry for each of the {tokens.count} tokens", key=key
            )
    _check_bytes(header, tokens.count)


def _check_bytes(header: Header, count: int) -> None:
    types = header.metadata.get(TOKEN_TYPES_KEY)
    marked = {index for index, kind in enumerate(types.items[:count]) if kind == _BYTE} if types else set()
    if strays := marked - header.byte_tokens:
        raise GgufMalformed(
            f"token {min(strays)} is marked as a byte and its text is none", token=min(strays)
        )
    if marked and header.tokenizer == _WORDPIECE:
        raise GgufMalformed("a WordPiece vocabulary has byte tokens", token=min(marked))
    if header.tokenizer == _SENTENCEPIECE and len(header.byte_tokens) < _BYTES:
        raise GgufMalformed(
            f"the vocabulary has {len(header.byte_tokens)} of 256 byte tokens, so that some text cannot be tokenized",
            key=VOCABULARY_KEY,
        )
