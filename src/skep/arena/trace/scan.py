"""The outer structure of a SimKube trace, cut into raw pieces without decoding them.

A trace is one MessagePack map: `version, config, events[…], index, pod_lifecycles`, in any order and with any
further keys. Pieces keep their bytes, so that what nobody touches is written back as it came. Source: SimKube's
trace file format, version 2; version 1 has no `config`, `index` and `pod_lifecycles`.
"""

import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

import msgpack
import msgspec

from skep.errors.arena import TraceInvalid, TraceTruncated, UnsupportedTraceVersion

READ_BYTES: Final = 1 << 20
VALUE_BYTES_MAX: Final = 1 << 30
"""The largest single string or binary of a trace; a longer one is refused, not buffered."""
CURRENT_VERSION: Final = 2
READABLE_VERSIONS: Final = (1, 2)
TOP_LEVEL_KEYS_MAX: Final = 64


class OldTraceVersion(UserWarning):
    """The trace has version 1: it was read, but lacks what SimKube 2 needs to replay it."""


class Piece(NamedTuple):
    """A run of bytes of the file: `kind` is `header`, `key`, `value`, `events` (the array's header) or `event`."""

    kind: str
    key: Any
    raw: bytes


class _Window:
    """A file that keeps what was read until it is taken, so that raw bytes can be cut out of a stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept = bytearray()
        self._start = 0
        self._taken = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._taken > self._start:
            del self._kept[: self._taken - self._start]
            self._start = self._taken
        self._kept += data
        return data

    def take_until(self, end: int) -> bytes:
        """Cut the bytes from the last cut to `end`."""
        raw = bytes(memoryview(self._kept)[self._taken - self._start : end - self._start])
        self._taken = end
        return raw


def scan(file: BinaryIO, name: str) -> Iterator[Piece]:
    """Yield the pieces of a trace in the order of the file; their bytes joined are the file.

    Raises: TraceTruncated, TraceInvalid, UnsupportedTraceVersion; pieces yielded before stay valid.
    """
    window = _Window(file)
    unpacker = msgpack.Unpacker(
        window, read_size=READ_BYTES, max_buffer_size=VALUE_BYTES_MAX, strict_map_key=False, use_list=False
    )
    try:
        yield from _pieces(unpacker, window, name)
    except msgpack.OutOfData:
        raise TraceTruncated(
            f"{name}: ends after {unpacker.tell()} bytes, before its structure does; fetch or export it again",
            where=name,
        ) from None
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
        detail = f"{type(error).__name__} {error}".strip()
        raise TraceInvalid(
            f"{name}: no MessagePack map at byte {unpacker.tell()} ({detail})", where=name
        ) from error


def _pieces(unpacker: Any, window: _Window, name: str) -> Iterator[Piece]:
    entries = unpacker.read_map_header()
    if entries > TOP_LEVEL_KEYS_MAX:
        raise TraceInvalid(f"{name}: {entries} top-level keys; a trace has 5", where=name)
    yield Piece("header", None, window.take_until(unpacker.tell()))
    seen: set[Any] = set()
    for _ in range(entries):
        key = unpacker.unpack()
        if key in seen:
            raise TraceInvalid(f"{name}: the key {key!r} comes twice", where=name)
        seen.add(key)
        yield Piece("key", key, window.take_until(unpacker.tell()))
        if key == "events":
            yield from _events(unpacker, window)
        else:
            unpacker.skip()
            raw = window.take_until(unpacker.tell())
            if key == "version":
                _check_version(raw, name)
            yield Piece("value", key, raw)
    _check_end(unpacker, seen, name)


def _events(unpacker: Any, window: _Window) -> Iterator[Piece]:
    count = unpacker.read_array_header()
    yield Piece("events", "events", window.take_until(unpacker.tell()))
    for _ in range(count):
        unpacker.skip()
        yield Piece("event", "events", window.take_until(unpacker.tell()))


def _check_version(raw: bytes, name: str) -> None:
    version = msgspec.msgpack.decode(raw)
    if isinstance(version, bool) or version not in READABLE_VERSIONS:
        raise UnsupportedTraceVersion(
            f"{name}: trace version {version!r}; this reads versions 1 and 2. Export it with a SimKube that writes 2",
            version=version,
            where=name,
        )
    if version != CURRENT_VERSION:
        warnings.warn(
            OldTraceVersion(
                f"{name}: trace version 1 has no pod life cycles; `skep arena trace convert` makes it 2"
            ),
            stacklevel=4,
        )


def _check_end(unpacker: Any, seen: set[Any], name: str) -> None:
    if "version" not in seen:
        raise UnsupportedTraceVersion(
            f"{name}: no `version`; a SimKube trace has one", version=None, where=name
        )
    if "events" not in seen:
        raise TraceInvalid(f"{name}: no `events`", where=f"{name}: events")
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        if unpacker.read_bytes(1):
            raise TraceInvalid(f"{name}: bytes follow the end of the trace", where=name) from None
        return
    raise TraceInvalid(f"{name}: bytes follow the end of the trace", where=name)
