"""Server-sent events: an incremental reader of bytes, and a writer.

The rules are those of the WHATWG HTML standard, section 9.2.6 ("Interpreting an event stream"). Lines end with CR, LF
or CRLF, wherever a network read happens to cut them; a CR ends its line at once, and an LF that follows is swallowed.
Text is decoded line by line, which is the same as decoding the whole stream: no UTF-8 sequence holds a CR or LF.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from skep.errors.wire import EventTooLarge, MalformedStream, UnsafeField

EVENT_BYTES_MAX: Final = 1 << 20
RETRY_MS_MAX: Final = 24 * 3600 * 1000
_RETRY_DIGITS_MAX: Final = 18
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_LF: Final = 10


class SseEvent(NamedTuple):
    """One dispatched event. `id` is the last id that the stream set; `at_s` is when its last byte arrived."""

    data: str
    event: str = "message"
    id: str = ""
    at_s: float | None = None


class SseParser:
    """Turns bytes into events, however the bytes are cut.

    Lenient (the default) follows the standard, which ignores what it does not know and replaces bad UTF-8. Strict
    raises MalformedStream for each thing that the standard silently drops: bad UTF-8, an unknown field, an id with
    NUL, a retry that is no number, an event without data, and a last event that was cut off.

    An event larger than `event_bytes_max` raises EventTooLarge in both modes. Events before the offending one are
    returned first; the error is raised by the next call. After an error the parser is spent.
    """

    def __init__(self, *, strict: bool = False, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.strict = strict
        self.event_bytes_max = event_bytes_max
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.comments = 0
        self.bytes_read = 0
        self._tail = bytearray()
        self._data: list[str] = []
        self._event = ""
        self._event_bytes = 0
        self._swallow_lf = False
        self._first_line = True
        self._failure: MalformedStream | None = None
        self._fields_seen = False

    @property
    def is_mid_event(self) -> bool:
        """True when bytes of an event have arrived that is not dispatched yet."""
        return bool(self._tail or self._data or self._fields_seen)

    def feed(self, chunk: bytes | bytearray | memoryview, at_s: float | None = None) -> list[SseEvent]:
        """Return the events that `chunk` completes. Raises: MalformedStream, EventTooLarge."""
        self._raise_failure()
        data = bytes(chunk)
        if not data:
            return []
        self.bytes_read += len(data)
        if self._swallow_lf:
            self._swallow_lf = False
            if data[0] == _LF:
                data = data[1:]
        events: list[SseEvent] = []
        lines = _LINE_END.split(data) if b"\r" in data else data.split(b"\n")
        try:
            for line in lines[:-1]:
                if self._tail:
                    self._tail += line
                    line = bytes(self._tail)  # noqa: PLW2901 - the line continues what came before
                    self._tail.clear()
                self._check_size(len(line))
                self._take_line(line, events, at_s)
            self._tail += lines[-1]
            self._check_size(len(self._tail))
        except MalformedStream as failure:
            self._failure = failure
            if not events:
                raise
        self._swallow_lf = data.endswith(b"\r")
        return events

    def close(self) -> None:
        """Say that the stream ended; what was not completed is discarded. Raises: MalformedStream when strict."""
        self._raise_failure()
        cut = self.is_mid_event
        self._tail.clear()
        self._reset()
        if cut and self.strict:
            raise MalformedStream("the stream ended inside an event", at_byte=self.bytes_read)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_size(self, line_bytes: int) -> None:
        if self._event_bytes + line_bytes > self.event_bytes_max:
            raise EventTooLarge(
                f"an event is larger than {self.event_bytes_max} bytes",
                at_byte=self.bytes_read,
                event_bytes_max=self.event_bytes_max,
            )

    def _reset(self) -> None:
        self._data = []
        self._event = ""
        self._event_bytes = 0
        self._fields_seen = False

    def _take_line(self, line: bytes, events: list[SseEvent], at_s: float | None) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events, at_s)
            return
        if line[0] == ord(":"):
            self.comments += 1
            self._check_text(line)
            return
        self._event_bytes += len(line)
        self._fields_seen = True
        name, _, value = self._check_text(line).partition(":")
        self._take_field(name, value.removeprefix(" "))

    def _check_text(self, line: bytes) -> str:
        if self.strict:
            try:
                return line.decode()
            except UnicodeDecodeError:
                self._violation("a line is not UTF-8")
        return line.decode(errors="replace")

    def _take_field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" in value:
                self._violation("an id holds NUL")
            else:
                self.last_event_id = value
        elif name == "retry":
            if value.isascii() and value.isdigit():
                self.retry_ms = min(int(value[:_RETRY_DIGITS_MAX]), RETRY_MS_MAX)
            else:
                self._violation("a retry is not a number")
        else:
            self._violation("a field has an unknown name")

    def _dispatch(self, events: list[SseEvent], at_s: float | None) -> None:
        if self._data:
            events.append(SseEvent("\n".join(self._data), self._event or "message", self.last_event_id, at_s))
        elif self._event:
            self._violation("an event has no data")
        self._reset()

    def _violation(self, what: str) -> None:
        if self.strict:
            raise MalformedStream(
                f"{what} (within the first {self.bytes_read} bytes)", at_byte=self.bytes_read
            )


def encode_event(data: str | bytes, event: str | None = None, id: str | None = None) -> bytes:  # noqa: A002 - the field's name
    """Return the bytes of one event; a line break in `data` becomes a second data line.

    Raises: UnsafeField when `event` or `id` holds a line break, or `id` a NUL.
    """
    parts: list[bytes] = []
    for name, value in (("event", event), ("id", id)):
        if value is None:
            continue
        if any(mark in value for mark in "\r\n\0"):
            raise UnsafeField(f"the {name} of an event holds a line break or NUL", field=name)
        parts.append(f"{name}: {value}\n".encode())
    raw = data.encode() if isinstance(data, str) else data
    parts.extend(b"data: " + line + b"\n" for line in _LINE_END.split(raw))
    parts.append(b"\n")
    return b"".join(parts)


def encode_comment(text: str = "") -> bytes:
    """Return a comment, which keeps a silent connection alive."""
    return b"".join(b": " + line + b"\n" for line in _LINE_END.split(text.encode())) + b"\n"


def parse_all(chunks: Iterable[bytes], *, strict: bool = False) -> list[SseEvent]:
    """Return every event of a whole stream. Raises: as SseParser."""
    parser = SseParser(strict=strict)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    parser.close()
    return events
