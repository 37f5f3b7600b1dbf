"""From token ids to text: whole UTF-8 only, and stop strings that never leak.

Both are incremental, and neither result depends on where the token borders fell.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from skep.runtime.backend import BackendModel

_decoder_of = codecs.getincrementaldecoder("utf-8")


class Pieces:
    """The bytes and, where they are whole UTF-8, the text of every token, looked up once."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._bytes: dict[int, bytes] = {}
        self.texts: dict[int, str | None] = {}

    def bytes_of(self, token: int) -> bytes:
        """Return a token's bytes. Raises: InvalidToken."""
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._piece(token)
        return found

    def text_of(self, token: int) -> str | None:
        """Return a token's text, or None when its bytes are no whole UTF-8. Raises: InvalidToken."""
        try:
            return self.texts[token]
        except KeyError:
            pass
        try:
            text: str | None = self.bytes_of(token).decode()
        except UnicodeDecodeError:
            text = None
        self.texts[token] = text
        return text


class StopMatch(NamedTuple):
    """What may be shown of a text, and the stop string that ended it."""

    shown: str
    matched: str | None


class StopScanner:
    """Finds the first of some stop strings; holds back what may still become one.

    The match that ends first wins, and of those that end together the one that starts first, so that cutting the text
    elsewhere finds the same.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self.held = ""

    def feed(self, text: str) -> StopMatch:
        """Take more text; return what may be shown now."""
        text = self.held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, stop = min(found)
            self.held = ""
            return StopMatch(text[:at], stop)
        keep = max(_overlap(text, stop) for stop in self._stops)
        self.held = text[len(text) - keep :]
        return StopMatch(text[: len(text) - keep], None)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class TextStream:
    """The text of one sequence, token by token."""

    __slots__ = ("_decoder", "_pending", "_pieces", "_scanner", "matched")

    def __init__(self, pieces: Pieces, stops: Sequence[str] = ()) -> None:
        self._pieces = pieces
        self._decoder = _decoder_of("replace")
        self._pending = False  # Bytes of an unfinished character wait in the decoder.
        self._scanner = StopScanner(stops) if stops else None
        self.matched: str | None = None

    def push(self, token: int) -> str:
        """Return the text that this token sets free; `matched` is set when a stop string was found."""
        text = self._pieces.texts.get(token)
        if text is None or self._pending:
            text = self._slow(token)
        if self._scanner is None:
            return text
        shown, self.matched = self._scanner.feed(text)
        return shown

    def flush(self) -> str:
        """Return what was held back; the end. An unfinished character becomes U+FFFD."""
        text = self._decoder.decode(b"", final=True)
        self._pending = False
        if self._scanner is None or self.matched is not None:
            return "" if self.matched is not None else text
        shown, self.matched = self._scanner.feed(text) if text else ("", None)
        held = "" if self.matched is not None else self._scanner.held
        self._scanner.held = ""
        return shown + held

    def _slow(self, token: int) -> str:
        text = self._pieces.text_of(token)
        if text is None or self._pending:
            text = self._decoder.decode(self._pieces.bytes_of(token))
            self._pending = bool(self._decoder.getstate()[0])
        return text


def detokenize(model: BackendModel, tokens: Iterable[int], *, special: bool = False) -> str:
    """Return the text of tokens; the space that some tokenizers (SentencePiece) put before a text is taken off.

    Bytes that are no UTF-8 become U+FFFD. Raises: InvalidToken, Closed.
    """
    text = b"".join(model.piece(token, special=special) for token in tokens)
    probe = b"".join(model.piece(token) for token in model.tokenize("a", add_special=False))
    return (text[1:] if probe.startswith(b" ") and text.startswith(b" ") else text).decode("utf-8", "replace")
