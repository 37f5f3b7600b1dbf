"""Traces that do not fit into memory: read event by event, rewritten event by event, in bounded memory.

Peak memory is a read buffer and the largest single event, whatever the length of the trace.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from skep.arena.trace.check import check_lifecycles, check_raw_event, declared_kinds
from skep.arena.trace.event import encode_event
from skep.arena.trace.scan import CURRENT_VERSION, Piece, scan
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable

SECTION_BYTES_MAX: Final = 64 << 20
"""A section (configuration, life cycles) that is longer than this is carried over but not decoded."""
EventEdit = Callable[[int, bytes], bytes | None]
"""Gets an event's position and bytes; returns other bytes, or None to keep them."""


class StreamInfo(msgspec.Struct, kw_only=True):
    """What a pass over a whole trace found."""

    version: int = 0
    events: int = 0
    applied: int = 0
    deleted: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    size_bytes: int = 0
    sha256: str = ""
    kinds: dict[str, int] = {}
    workloads: dict[str, dict[str, Any]] = {}
    lifecycles: int = 0


@contextlib.contextmanager
def opened(path: Path) -> Generator[BinaryIO]:
    """Open a trace for streaming. Raises: TraceNotFound, TraceUnreadable."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise TraceNotFound(
            f"no trace at {path}; `skep arena trace generate {path}` makes one", path=str(path)
        ) from None
    except OSError as error:
        raise TraceUnreadable(f"{path}: {error.strerror or error}", where=str(path)) from error
    with file:
        yield file


def pieces_of(path: Path) -> Generator[Piece]:
    """Yield a file's pieces; see `scan`."""
    with opened(path) as file:
        yield from scan(file, str(path))


def iter_events(path: Path) -> Iterator[bytes]:
    """Yield the raw events of a trace of any size."""
    return (piece.raw for piece in pieces_of(path) if piece.kind == "event")


def check_stream(path: Path, on_event: Callable[[int, dict[str, Any]], None] | None = None) -> StreamInfo:
    """Check a whole trace in one pass and say what is in it. Raises: TraceInvalid and the causes below it."""
    info, digest, known, last_ts = StreamInfo(), hashlib.sha256(), frozenset[str](), 0
    for piece in pieces_of(path):
        digest.update(piece.raw)
        info.size_bytes += len(piece.raw)
        if piece.kind == "value" and len(piece.raw) <= SECTION_BYTES_MAX:
            known = _take_section(piece, info, known, str(path))
        if piece.kind == "event":
            last_ts = check_raw_event(piece.raw, f"{path}: event {info.events}", known, last_ts)
            if info.first_ts is None:
                info.first_ts = last_ts
            info.last_ts = last_ts
            if on_event is not None:
                on_event(info.events, msgspec.msgpack.decode(piece.raw))
            info.events += 1
    info.sha256 = digest.hexdigest()
    return info


def _take_section(piece: Piece, info: StreamInfo, known: frozenset[str], name: str) -> frozenset[str]:
    try:
        value = msgspec.msgpack.decode(piece.raw)
    except (msgspec.DecodeError, RecursionError, TypeError) as error:
        raise TraceInvalid(f"{name}: {piece.key}: {error}", where=str(piece.key)) from error
    if piece.key == "version":
        info.version = value
    if piece.key == "config":
        return declared_kinds(value, name)
    if piece.key == "pod_lifecycles":
        check_lifecycles(value, name)
        info.lifecycles = sum(len(states) for hashes in value.values() for states in hashes.values())
    return known


def rewrite(source: Path, target: Path, edit: EventEdit) -> int:
    """Write `source` to `target` with some events changed; return how many were.

    `target` appears whole or not at all, also when `source` turns out to be malformed at its end.
    """
    changed = position = 0
    with _replacing(target) as file:
        for piece in pieces_of(source):
            raw = piece.raw
            if piece.kind == "event":
                other = edit(position, raw)
                position += 1
                if other is not None and other != raw:
                    raw, changed = other, changed + 1
            file.write(raw)
    return changed


def write_stream(
    target: Path,
    events: Iterator[dict[str, Any]],
    count: int,
    *,
    config: dict[str, Any] | None = None,
    index: dict[str, Any] | None = None,
) -> None:
    """Write a version 2 trace of exactly `count` events without holding them."""
    with _replacing(target) as file:
        pack = msgspec.msgpack.encode
        file.write(b"\x85" + pack("version") + pack(CURRENT_VERSION))
        file.write(pack("config") + pack(config or {"trackedObjects": {}}))
        file.write(pack("events") + _array_header(count))
        written = 0
        for event in events:
            file.write(encode_event(event))
            written += 1
        if written != count:
            raise TraceInvalid(f"{target}: {written} events were made, {count} announced", where=str(target))
        file.write(pack("index") + pack(index or {}) + pack("pod_lifecycles") + b"\x80")


def _array_header(count: int) -> bytes:
    if count < 16:  # noqa: PLR2004 - MessagePack's fixarray
        return bytes([0x90 | count])
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


@contextlib.contextmanager
def _replacing(target: Path) -> Generator[BinaryIO]:
    """Write to a temporary name beside the target, bring it to disk, rename; on failure leave nothing."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise TraceUnreadable(f"{target}: cannot be written: {error.strerror}", where=str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_trace_bytes(target: Path, data: bytes) -> None:
    """Write a whole trace atomically."""
    with _replacing(target) as file:
        file.write(data)
