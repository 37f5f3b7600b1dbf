"""A model's vocabulary: text to token ids and back. Reading it is safe from any thread."""

import ctypes
from typing import Any, Final

from skep.errors import InvalidInput
from skep.errors.runtime import InvalidToken

TEXT_BYTES_MAX: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 64

# llama.h, enum llama_vocab_type.
VOCABULARY_TYPES: Final = {
    0: "none",
    1: "spm",
    2: "bpe",
    3: "wpm",
    4: "ugm",
    5: "rwkv",
    6: "plamo2",
    7: "test",
}


class Vocabulary:
    """Pieces are read once, so that a piece costs a list index later. Holds nothing that must be freed."""

    def __init__(self, api: Any, handle: int) -> None:
        self._api = api
        self._handle = handle
        self.size: int = api.llama_vocab_n_tokens(handle)
        self.kind = VOCABULARY_TYPES.get(api.llama_vocab_type(handle), "unknown")
        self.bos_token = self._optional(api.llama_vocab_bos(handle))
        self.eos_token = self._optional(api.llama_vocab_eos(handle))
        self.adds_bos: bool = api.llama_vocab_get_add_bos(handle)
        self.end_tokens = frozenset(
            token for token in range(self.size) if api.llama_vocab_is_eog(handle, token)
        )
        self._plain: list[bytes | None] = [None] * self.size
        self._special: list[bytes | None] = [None] * self.size

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return token ids. Raises: InvalidInput for text over TEXT_BYTES_MAX or with lone surrogates."""
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"text is not valid Unicode at index {error.start}") from error
        if len(raw) > TEXT_BYTES_MAX:
            raise InvalidInput(f"text of {len(raw)} bytes is over the limit of {TEXT_BYTES_MAX}")
        room = len(raw) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self._api.llama_tokenize(
                self._handle, raw, len(raw), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            room = -count

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token. Raises: InvalidToken."""
        # The library throws a C++ exception on an id out of range, and a negative index would wrap here.
        if not 0 <= token < self.size:
            raise InvalidToken(f"token {token} is outside the vocabulary of {self.size}", token=token)
        known = self._special if special else self._plain
        piece = known[token]
        if piece is None:
            piece = known[token] = self._read_piece(token, special=special)
        return piece

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        room = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._api.llama_token_to_piece(self._handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def _optional(self, token: int) -> int | None:
        return token if 0 <= token < self.size else None
