"""What a starting worker tells its owner on the report pipe: JSON lines, then the pipe closes."""

import msgspec

from skep.errors import InvalidInput


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of the lines; the tag is the field `event`."""


class Starting(_Line, frozen=True, kw_only=True, tag="starting"):
    """The process runs; `nonce` proves whose it is."""

    pid: int
    nonce: str


class Loading(_Line, frozen=True, kw_only=True, tag="loading"):
    """The model is being brought into memory: 0..1."""

    progress: float


class Ready(_Line, frozen=True, kw_only=True, tag="ready"):
    """It accepts on `port`."""

    port: int


class Failed(_Line, frozen=True, kw_only=True, tag="failed"):
    """It gave up, and exits with 1. `code` is an error's code, `message` one line for people."""

    code: str
    message: str
    retryable: bool = False


StartReport = Starting | Loading | Ready | Failed
LINE_BYTES_MAX = 64 * 1024

_decoder = msgspec.json.Decoder(StartReport)


def decode(line: bytes) -> StartReport:
    """Decode one line. Raises: InvalidInput."""
    try:
        report: StartReport = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not a start report: {error}") from error
    return report


def encode(report: StartReport) -> bytes:
    """Return one line, newline included."""
    return msgspec.json.encode(report) + b"\n"
