"""Heads of HTTP messages: which headers pass a hop, and the bytes of a head."""

import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

REQUEST_ID_CHARS_MAX = 128
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

REQUEST_HEADERS = frozenset(
    {b"accept", b"content-type", b"traceparent", b"tracestate", b"baggage", b"user-agent"}
)
"""What of a client's head goes on to a replica: a list of the few, so that nothing is smuggled or leaked."""

RESPONSE_HEADERS_DROPPED = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"server",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)
"""What of a replica's head stays on its hop."""

Headers = Iterable[tuple[bytes, bytes]]

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("latin-1") for status in HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def response_head(status: int, headers: Headers) -> bytes:
    """Return a response's head."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()
    return b"".join([line, *(b"%b: %b\r\n" % pair for pair in headers), b"\r\n"])


def request_head(method: bytes, target: bytes, headers: Headers) -> bytes:
    """Return a request's head."""
    line = b"%b %b HTTP/1.1\r\n" % (method, target)
    return b"".join([line, *(b"%b: %b\r\n" % pair for pair in headers), b"\r\n"])


def chunk(data: bytes) -> bytes:
    """Return data as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def date_header(now_s: float) -> bytes:
    """Return the value of a Date header."""
    return formatdate(now_s, usegmt=True).encode()


def is_request_id(value: bytes) -> bool:
    """True when a client's x-request-id may be used as it is."""
    return _REQUEST_ID.fullmatch(value) is not None
