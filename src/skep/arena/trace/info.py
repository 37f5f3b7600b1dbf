"""What is in a trace, for people: workloads, kinds, times."""

from pathlib import Path
from typing import Any

from skep.arena.trace.event import kind_key, name_key
from skep.arena.trace.stream import StreamInfo, check_stream
from skep.arena.workload import WORKLOAD_KINDS, resources_of


def trace_info(path: Path) -> StreamInfo:
    """Check a trace of any size and describe it; of each workload the last that is applied. Raises: TraceInvalid."""
    workloads: dict[str, dict[str, Any]] = {}
    kinds: dict[str, int] = {}
    counts = {"applied_objs": 0, "deleted_objs": 0}

    def take(position: int, event: dict[str, Any]) -> None:
        del position
        for field in counts:
            counts[field] += len(event[field])
        for manifest in event["applied_objs"]:
            kind = kind_key(manifest)
            kinds[kind] = kinds.get(kind, 0) + 1
            if manifest["kind"] in WORKLOAD_KINDS:
                wanted = resources_of(manifest)
                workloads[name_key(manifest)] = {
                    "kind": manifest["kind"],
                    "replicas": wanted.replicas,
                    "cpu_m": wanted.cpu_m,
                    "memory_bytes": wanted.memory_bytes,
                }

    info = check_stream(path, take)
    info.applied, info.deleted = counts["applied_objs"], counts["deleted_objs"]
    info.kinds, info.workloads = dict(sorted(kinds.items())), dict(sorted(workloads.items()))
    return info
