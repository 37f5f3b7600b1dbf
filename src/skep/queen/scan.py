"""Reading an event stream without parsing it: where events end, how many, was it the end, what was used.

The gateway forwards whole events only, so that an error can always be put after what was sent. JSON text holds no raw
line break, so a line that starts with `data:` is a field of the stream and never text of the model.
"""

import re

import msgspec

TAIL_BYTES_MAX = 1 << 20
"""An event that is longer than this is forwarded as it comes."""

_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")
_USAGE = b'"usage":'
_DONE = (b"data: [DONE]", b"data:[DONE]")
_ERROR = (b'data: {"error"', b'data:{"error"', b'data: { "error"', b"event: error")
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"[^"]')


class Usage(msgspec.Struct, frozen=True):
    """Tokens that an answer used, as the engine counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class StreamScan:
    """Follows one event stream. `feed` returns the bytes that may be forwarded."""

    __slots__ = ("_tail", "_usage", "events", "has_text", "is_done", "is_failed")

    def __init__(self) -> None:
        self._tail = b""
        self._usage = b""
        self.events = 0
        self.has_text = self.is_done = self.is_failed = False

    def feed(self, body: bytes) -> bytes:
        """Take more of the stream; return what ends in a whole event."""
        if self._tail:
            body = self._tail + body
            self._tail = b""
        if not body.endswith(b"\n\n"):
            end = _boundary(body)
            if end == 0 and len(body) > TAIL_BYTES_MAX:
                end = len(body)
            self._tail = body[end:]
            body = body[:end]
        if body:
            self._look(body)
        return body

    @property
    def is_cut(self) -> bool:
        """True when the stream stands inside an event."""
        return bool(self._tail)

    @property
    def usage(self) -> Usage:
        """What the last `usage` object said; zeros when there was none."""
        return parse_usage(self._usage)

    def _look(self, body: bytes) -> None:
        """Look at whole events; the two that end a stream are looked for where they can stand, as its last."""
        self.events += body.count(b"\ndata:") + body.startswith(b"data:")
        if not self.has_text and _TEXT.search(body):
            self.has_text = True
        last = _last_event(body)
        if body.startswith(_DONE, last):
            self.is_done = True
            self.events -= 1
        elif body.startswith(_ERROR, last):
            self.is_failed = True
        at = body.rfind(_USAGE)
        if at >= 0 and body[at + len(_USAGE) :].lstrip()[:1] == b"{":
            self._usage = body[at + len(_USAGE) :]


def _last_event(body: bytes) -> int:
    """Return where the last whole event begins."""
    if body.endswith(b"\n\n"):
        before = body.rfind(b"\n\n", 0, -2)
        return before + 2 if before >= 0 else 0
    whole = body.rstrip(b"\r\n")
    ends = [whole.rfind(mark) + len(mark) for mark in _BLANK_LINES if mark in whole]
    return max(ends, default=0)


def parse_usage(text: bytes) -> Usage:
    """Read the object that starts the text; zeros when it is none."""
    start, end = text.find(b"{"), text.find(b"}")
    nested = text.find(b"{", start + 1)
    while start >= 0 and end >= 0:
        try:
            return msgspec.json.decode(text[start : end + 1], type=Usage)
        except msgspec.DecodeError:
            if not 0 <= nested < end:
                return Usage()
            end = text.find(b"}", end + 1)
    return Usage()


def body_usage(body: bytes) -> Usage:
    """Read the usage of a whole, plain answer."""
    at = body.rfind(_USAGE)
    return parse_usage(body[at + len(_USAGE) :]) if at >= 0 else Usage()


def _boundary(body: bytes) -> int:
    """Return where the last whole event ends, 0 when none does."""
    end = body.rfind(b"\n\n") + 2
    if b"\r" in body:
        end = max(end if end > 1 else 0, body.rfind(b"\n\r\n") + 3, body.rfind(b"\r\r") + 2)
    return end if end > 2 else 0  # noqa: PLR2004 - what was not found gives at most 2
