"""Trace context by W3C's `traceparent` header: read it, make it, pass it on."""

import os
import re
from typing import Final, NamedTuple

HEADER: Final = "traceparent"
_FORM: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_SAMPLED: Final = 0x01


class TraceContext(NamedTuple):
    """Which trace this work belongs to, and which span it is. Lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def child(self) -> "TraceContext":
        """Return a new span of the same trace."""
        return self._replace(span_id=_random_hex(8))

    def header(self) -> str:
        """Return the value of a traceparent header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def new_trace() -> TraceContext:
    """Return a trace that begins here."""
    return TraceContext(_random_hex(16), _random_hex(8))


def parse(value: str | bytes | None) -> TraceContext | None:
    """Return what a header says; None when there is none or it breaks the rules (then a new trace begins)."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value or ""
    found = _FORM.fullmatch(text.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return TraceContext(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))


def _random_hex(size_bytes: int) -> str:
    return os.urandom(size_bytes).hex()
