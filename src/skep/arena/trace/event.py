"""One event of a trace: when, which objects were applied, which deleted. Knows its bytes both ways."""

from typing import Any, Final

import msgspec

from skep.errors.arena import TraceInvalid

Manifest = dict[str, Any]
_DECODER: Final = msgspec.msgpack.Decoder()
_ENCODER: Final = msgspec.msgpack.Encoder()


def decode_event(raw: bytes, where: str) -> dict[str, Any]:
    """Decode one event; keys that are not ours stay in it. Raises: TraceInvalid."""
    try:
        event = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
        raise TraceInvalid(f"{where}: {error}", where=where) from error
    if not isinstance(event, dict):
        raise TraceInvalid(f"{where}: an event is a map, not {type(event).__name__}", where=where)
    return event


def encode_event(event: dict[str, Any]) -> bytes:
    """Encode one event as SimKube does: maps by name, the shortest integers and strings, keys in their order."""
    return _ENCODER.encode(event)


def new_event(
    ts: int, applied: list[Manifest] | None = None, deleted: list[Manifest] | None = None
) -> dict[str, Any]:
    """Make an event as a tracer would write it."""
    return {"ts": ts, "applied_objs": applied or [], "deleted_objs": deleted or []}


def kind_key(manifest: Manifest) -> str:
    """Name a manifest's kind as a trace's index does: `group/version.Kind`, core kinds without the group."""
    return f"{manifest['apiVersion']}.{manifest['kind']}"


def name_key(manifest: Manifest) -> str:
    """Name an object as a trace's index does: `namespace/name`; cluster-scoped objects have no namespace."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])
