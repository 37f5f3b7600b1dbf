"""Traces of other projects brought to our forms: cluster traces to SimKube events, request traces to requests."""

from pathlib import Path

from skep.arena.importers.alibaba import alibaba_events
from skep.arena.importers.request import Request, read_requests, write_requests
from skep.arena.importers.serving import READERS, import_requests
from skep.arena.trace.check import check_trace
from skep.arena.trace.stream import write_trace_bytes
from skep.arena.trace.trace import Trace
from skep.errors.arena import UnknownName

ALIBABA = "alibaba-gpu-2023"
FORMATS = (ALIBABA, *READERS)


def import_trace(source: Path, target: Path, format_name: str, nodes: Path | None = None) -> int:
    """Import a file; return how many events or requests it became. Raises: UnknownName, TraceInvalid; nothing is then written."""
    if format_name == ALIBABA:
        config = {"trackedObjects": {"v1.Pod": {"podSpecTemplatePaths": [""]}}}
        trace = Trace.build(alibaba_events(source, nodes), name=str(source), config=config)
        check_trace(trace)
        write_trace_bytes(target, trace.to_bytes())
        return len(trace.events)
    if format_name not in READERS:
        raise UnknownName(f"no format {format_name!r}; there are {', '.join(FORMATS)}", known=FORMATS)
    return write_requests(target, import_requests(source, format_name))


__all__ = ["FORMATS", "Request", "import_requests", "import_trace", "read_requests", "write_requests"]
