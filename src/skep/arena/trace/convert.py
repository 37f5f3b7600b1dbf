"""Traces as JSON to read and edit, and back; and version 1 made version 2.

JSON has neither array keys nor 64-bit integer keys, so `pod_lifecycles` is a list of
`[[kind, "ns/name"], {"hash": [states]}]` there. Everything else is the trace as it is.
"""

from pathlib import Path
from typing import Any

import msgspec

from skep.arena.trace.check import check_trace
from skep.arena.trace.scan import CURRENT_VERSION
from skep.arena.trace.stream import write_trace_bytes
from skep.arena.trace.trace import Trace, read_trace
from skep.errors.arena import TraceInvalid, TraceNotFound, UnsupportedTraceVersion


def to_plain(trace: Trace) -> dict[str, Any]:
    """Return the whole trace as JSON can hold it; unknown top-level keys included."""
    plain: dict[str, Any] = {
        key: trace.decoded() if key == "events" else trace.section(key) for key in trace.keys
    }
    lifecycles = plain.get("pod_lifecycles")
    if lifecycles is not None:
        plain["pod_lifecycles"] = [
            [list(owner), {str(key): states for key, states in hashes.items()}]
            for owner, hashes in lifecycles.items()
        ]
    return plain


def from_plain(plain: Any, name: str) -> Trace:
    """Return the trace that `to_plain` was made of. Raises: TraceInvalid, UnsupportedTraceVersion."""
    if not isinstance(plain, dict):
        raise TraceInvalid(f"{name}: a trace is a map, not {type(plain).__name__}", where=name)
    whole = dict(plain)
    listed = whole.get("pod_lifecycles")
    if isinstance(listed, list):
        try:
            whole["pod_lifecycles"] = {
                tuple(owner): {int(key): states for key, states in hashes.items()} for owner, hashes in listed
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise TraceInvalid(
                f"{name}: pod_lifecycles: [[kind, name], {{hash: states}}] pairs: {error}", where=name
            ) from error
    trace = Trace.parse(msgspec.msgpack.encode(whole), name)
    check_trace(trace)
    return trace


def upgraded(trace: Trace) -> Trace:
    """Return a version 1 trace as version 2, with what 2 requires left empty; a version 2 trace as it is."""
    if trace.version == CURRENT_VERSION:
        return trace
    known = ("version", "config", "index", "pod_lifecycles")
    whole: dict[str, Any] = {
        "version": CURRENT_VERSION,
        "config": trace.section("config") or {"trackedObjects": {}},
        "events": [msgspec.Raw(raw) for raw in trace.events],
        "index": trace.section("index") or {},
        "pod_lifecycles": trace.section("pod_lifecycles") or {},
    }
    whole |= {key: trace.section(key) for key in trace.section_keys() if key not in known}
    return Trace.parse(msgspec.msgpack.encode(whole), trace.name)


def read_any(path: Path) -> Trace:
    """Read a trace, or its JSON form where the name ends in `.json`. Raises: what `read_trace` raises."""
    if path.suffix != ".json":
        return read_trace(path)
    try:
        plain = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise TraceNotFound(f"no trace at {path}", path=str(path)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise TraceInvalid(f"{path}: {error}", where=str(path)) from error
    return from_plain(plain, str(path))


def convert(source: Path, target: Path) -> Trace:
    """Convert by the names' endings (`.json` is JSON, anything else MessagePack); always writes version 2."""
    trace = upgraded(read_any(source))
    check_trace(trace)
    if target.suffix == ".json":
        text = msgspec.json.format(msgspec.json.encode(to_plain(trace)), indent=2)
        write_trace_bytes(target, text + b"\n")
    else:
        write_trace_bytes(target, trace.to_bytes())
    return trace


__all__ = ["UnsupportedTraceVersion", "convert", "from_plain", "read_any", "to_plain", "upgraded"]
