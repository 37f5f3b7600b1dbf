"""A whole trace in memory: immutable, addressed by the hash of its bytes, edited by making another.

Events stay raw until somebody asks for one. For traces that do not fit into memory see `stream.py`.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from skep.arena.trace.event import decode_event, encode_event
from skep.arena.trace.scan import CURRENT_VERSION, scan
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable

TRACE_BYTES_MAX: Final = 256 << 20
"""The largest trace that is held whole; a longer one is streamed."""


class Trace:
    """A trace as its raw pieces. `name` is for messages only; two traces of the same bytes are equal."""

    def __init__(
        self,
        *,
        name: str,
        head: bytes,
        events: tuple[bytes, ...],
        tail: bytes,
        sections: Mapping[str, bytes],
        keys: tuple[str, ...],
    ) -> None:
        self.name = name
        self.events = events
        self._head = head
        self._tail = tail
        self._sections = dict(sections)
        self.keys = keys
        """Every top-level key, `events` among them, in the file's order."""

    @classmethod
    def parse(cls, data: bytes, name: str = "trace") -> "Trace":
        """Cut bytes into a trace. Raises: TraceUnreadable and the causes below it."""
        head, tail, events = bytearray(), bytearray(), []
        sections: dict[str, bytes] = {}
        keys: list[str] = []
        is_before_events = True
        for piece in scan(io.BytesIO(data), name):
            if piece.kind == "event":
                is_before_events = False
                events.append(piece.raw)
                continue
            if piece.kind == "key":
                keys.append(str(piece.key))
            if piece.kind == "value":
                sections[str(piece.key)] = piece.raw
            if piece.kind == "events":
                head += piece.raw
                is_before_events = False
                continue
            (head if is_before_events else tail).extend(piece.raw)
        return cls(
            name=name,
            head=bytes(head),
            events=tuple(events),
            tail=bytes(tail),
            sections=sections,
            keys=tuple(keys),
        )

    @classmethod
    def build(
        cls,
        events: Iterable[dict[str, Any]],
        *,
        name: str = "trace",
        config: dict[str, Any] | None = None,
        index: dict[str, Any] | None = None,
        lifecycles: dict[Any, Any] | None = None,
    ) -> "Trace":
        """Make a version 2 trace from events, as a tracer would write it."""
        whole = {
            "version": CURRENT_VERSION,
            "config": config or {"trackedObjects": {}},
            "events": list(events),
            "index": index or {},
            "pod_lifecycles": lifecycles or {},
        }
        return cls.parse(msgspec.msgpack.encode(whole), name)

    def to_bytes(self) -> bytes:
        """Return the file: byte for byte what was read, but for events that were replaced."""
        return b"".join((self._head, *self.events, self._tail))

    @cached_property
    def sha256(self) -> str:
        """The hash of the whole file."""
        digest = hashlib.sha256(self._head)
        for raw in self.events:
            digest.update(raw)
        digest.update(self._tail)
        return digest.hexdigest()

    @property
    def version(self) -> int:
        """1 or 2."""
        return int(self.section("version"))

    def section_keys(self) -> tuple[str, ...]:
        """Return the top-level keys but `events`, in the file's order."""
        return tuple(self._sections)

    def section(self, key: str) -> Any:
        """Decode a top-level value (array keys of maps become tuples), None where the trace lacks it."""
        raw = self._sections.get(key)
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw)
        except (msgspec.DecodeError, RecursionError, TypeError) as error:
            raise TraceInvalid(f"{self.name}: {key}: {error}", where=key) from error

    def event(self, position: int) -> dict[str, Any]:
        """Decode one event; changing the result changes nothing here."""
        return decode_event(self.events[position], f"{self.name}: event {position}")

    def decoded(self) -> list[dict[str, Any]]:
        """Decode every event."""
        return [self.event(position) for position in range(len(self.events))]

    def with_events(self, changed: Mapping[int, dict[str, Any]]) -> "Trace":
        """Return a trace where the events at these positions are others; the rest keeps its bytes."""
        if not changed:
            return self
        events = list(self.events)
        for position, event in changed.items():
            events[position] = encode_event(event)
        return self.with_raw(tuple(events))

    def with_raw(self, events: tuple[bytes, ...]) -> "Trace":
        """Return the trace with other events, as many as before, in their bytes."""
        return Trace(
            name=self.name,
            head=self._head,
            events=events,
            tail=self._tail,
            sections=self._sections,
            keys=self.keys,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Trace({self.name!r}, {len(self.events)} events, {self.sha256[:8]})"


def read_trace(path: Path) -> Trace:
    """Read a trace file whole. Raises: TraceNotFound, TraceUnreadable and the causes below it."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > TRACE_BYTES_MAX:
                raise TraceUnreadable(
                    f"{path}: {size} bytes; more than {TRACE_BYTES_MAX} are streamed, not held: "
                    "see `skep arena trace --help`",
                    where=str(path),
                )
            data = file.readall()
    except FileNotFoundError:
        raise TraceNotFound(
            f"no trace at {path}; `skep arena trace generate {path}` makes one", path=str(path)
        ) from None
    except OSError as error:
        raise TraceUnreadable(f"{path}: {error.strerror or error}", where=str(path)) from error
    return Trace.parse(data, str(path))
