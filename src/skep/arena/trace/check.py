"""What a trace may say: types and ranges of every event, checked before anything is simulated or written."""

from collections.abc import Iterable
from typing import Any, Final

from skep.arena.manifests import parse
from skep.arena.trace.event import Manifest, decode_event
from skep.arena.trace.trace import Trace
from skep.errors.arena import InvalidQuantity, TraceInvalid, UnknownKind

TS_MAX: Final = 253_402_300_799
"""The last second of the year 9999; a later time stamp is in the wrong unit."""
REPLICAS_MAX: Final = 1_000_000
"""More pods than any Kubernetes cluster holds (150,000 is its stated limit)."""
LIFECYCLE_STATES: Final = ("Running", "Finished")


def check_trace(trace: Trace) -> None:
    """Check a whole trace. Raises: TraceInvalid and the causes below it; the message says where."""
    known = declared_kinds(trace.section("config"), trace.name)
    check_lifecycles(trace.section("pod_lifecycles"), trace.name)
    last_ts = 0
    for position in range(len(trace.events)):
        last_ts = check_event(trace.event(position), f"{trace.name}: event {position}", known, last_ts)


def check_raw_event(raw: bytes, where: str, known: frozenset[str], last_ts: int) -> int:
    """Check one event of a stream; returns its time stamp, to pass with the next one."""
    return check_event(decode_event(raw, where), where, known, last_ts)


def declared_kinds(config: Any, name: str) -> frozenset[str]:
    """Return the kinds that the trace's configuration tracks, as `group/version.Kind`. Raises: TraceInvalid."""
    if config is None:
        return frozenset()
    tracked = config.get("trackedObjects", {}) if isinstance(config, dict) else None
    if not isinstance(tracked, dict) or not all(isinstance(kind, str) for kind in tracked):
        raise TraceInvalid(f"{name}: config.trackedObjects: a map of kinds", where="config")
    return frozenset(tracked)


def check_event(event: dict[str, Any], where: str, known: frozenset[str], last_ts: int) -> int:
    """Check one event; `known` are kinds that are allowed beside the built-in ones. Returns its time stamp."""
    ts = event.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int) or not 0 <= ts <= TS_MAX:
        raise TraceInvalid(f"{where}: ts: unix seconds, not {ts!r}", where=where)
    if ts < last_ts:
        raise TraceInvalid(f"{where}: ts {ts} is before the event before it ({last_ts})", where=where)
    for field in ("applied_objs", "deleted_objs"):
        objects = event.get(field)
        if not isinstance(objects, list):
            raise TraceInvalid(f"{where}: {field}: a list, not {type(objects).__name__}", where=where)
        for position, manifest in enumerate(objects):
            check_manifest(
                manifest, f"{where}: {field}[{position}]", known, is_applied=field == "applied_objs"
            )
    return ts


def check_manifest(
    manifest: Any, where: str, known: frozenset[str] = frozenset(), *, is_applied: bool = True
) -> None:
    """Check one object: it is named, of a known kind, and what Kubernetes would take."""
    if not isinstance(manifest, dict):
        raise TraceInvalid(f"{where}: an object is a map, not {type(manifest).__name__}", where=where)
    for field in ("apiVersion", "kind"):
        if not isinstance(manifest.get(field), str) or not manifest[field]:
            raise TraceInvalid(f"{where}: {field}: text, not {manifest.get(field)!r}", where=where)
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise TraceInvalid(f"{where}: metadata.name: text", where=where)
    if is_applied and f"{manifest['apiVersion']}.{manifest['kind']}" not in known - SIMULATED:
        _check_known(manifest, f"{where}: {manifest['kind']} {metadata['name']}")


SIMULATED: Final = frozenset(
    {"apps/v1.Deployment", "apps/v1.ReplicaSet", "apps/v1.StatefulSet", "batch/v1.Job", "v1.Pod", "v1.Node"}
)


def _check_known(manifest: Manifest, where: str) -> None:
    spec = manifest.get("spec")
    for field in ("replicas", "parallelism", "completions"):
        count = spec.get(field) if isinstance(spec, dict) else None
        if isinstance(count, int) and count > REPLICAS_MAX:
            raise InvalidQuantity(f"{where}: spec.{field}: {count} is beyond {REPLICAS_MAX}", where=where)
    try:
        parse(manifest)
    except TraceInvalid as error:
        raise type(error)(f"{where}: {error}", **{**error.facts, "where": where}) from error
    except RecursionError:
        raise TraceInvalid(f"{where}: nested too deeply", where=where) from None


def check_lifecycles(lifecycles: Any, name: str) -> None:
    """Check the shape of `pod_lifecycles`: (kind, name) → hash → list of states."""
    if lifecycles is None:
        return
    if not isinstance(lifecycles, dict):
        raise TraceInvalid(
            f"{name}: pod_lifecycles: a map, not {type(lifecycles).__name__}", where="pod_lifecycles"
        )
    for owner, hashes in lifecycles.items():
        where = f"{name}: pod_lifecycles[{owner!r}]"
        if not _is_owner(owner):
            raise TraceInvalid(f"{where}: the key is [kind, namespace/name]", where=where)
        if not isinstance(hashes, dict) or not all(isinstance(states, list) for states in hashes.values()):
            raise TraceInvalid(f"{where}: a map of lists", where=where)
        for state in _flat(hashes.values()):
            _check_lifecycle(state, where)


def _is_owner(owner: Any) -> bool:
    if not isinstance(owner, tuple):
        return False
    return [type(part) for part in owner] == [str, str]


def _flat(lists: Iterable[list[Any]]) -> Iterable[Any]:
    return (state for states in lists for state in states)


def _check_lifecycle(state: Any, where: str) -> None:
    if state == "Empty":
        return
    if isinstance(state, dict) and len(state) == 1:
        (name, value), *_ = state.items()
        times = [value] if name == "Running" else value if name == "Finished" else None
        is_whole = isinstance(times, list) and len(times) == 1 + (name == "Finished")
        if is_whole and all(isinstance(time, int) and not isinstance(time, bool) for time in times or ()):
            if name == "Finished" and value[1] < value[0]:
                raise TraceInvalid(f"{where}: ends before it starts: {state!r}", where=where)
            return
    raise TraceInvalid(
        f"{where}: Empty, Running: start, or Finished: [start, end]; not {state!r}", where=where
    )


__all__ = [
    "UnknownKind",
    "check_event",
    "check_lifecycles",
    "check_manifest",
    "check_raw_event",
    "check_trace",
    "declared_kinds",
]
