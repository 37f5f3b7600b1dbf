"""A malformed trace of every kind is a typed error that says where, before anything is simulated or written."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.arena.runner import StepOptions, one_step
from skep.arena.trace.check import check_trace
from skep.arena.trace.generate import WorkloadPlan, manifest_of, trace_of
from skep.arena.trace.stream import check_stream
from skep.arena.trace.trace import Trace
from skep.errors.arena import (
    InvalidManifest,
    InvalidQuantity,
    TraceInvalid,
    TraceUnreadable,
    UnknownKind,
    UnsupportedTraceVersion,
)

WEB = manifest_of(WorkloadPlan())
GOOD: dict[str, Any] = {
    "version": 2,
    "config": {"trackedObjects": {}},
    "events": [{"ts": 1, "applied_objs": [WEB], "deleted_objs": []}],
    "index": {},
    "pod_lifecycles": {},
}


def changed(path: tuple[Any, ...], value: Any) -> bytes:
    whole: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(GOOD))
    at = whole
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return msgspec.msgpack.encode(whole)


EVENT = ("events", 0)
MANIFEST = (*EVENT, "applied_objs", 0)
REQUESTS = (*MANIFEST, "spec", "template", "spec", "containers", 0, "resources", "requests")
KEY = ("apps/v1.Deployment", "default/web")
DEEP = msgspec.Raw(b"\x81\xa1a" * 3000 + b"\x80")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TraceUnreadable),
        (b"\x01", TraceUnreadable),
        (b"version: 2", TraceUnreadable),
        (msgspec.msgpack.encode([GOOD]), TraceUnreadable),
        (msgspec.msgpack.encode(GOOD) + b"\x00", TraceInvalid),
        (msgspec.msgpack.encode(GOOD)[:-1], TraceUnreadable),
        (changed(("version",), 3), UnsupportedTraceVersion),
        (changed(("version",), 0), UnsupportedTraceVersion),
        (changed(("version",), "2"), UnsupportedTraceVersion),
        (changed(("version",), True), UnsupportedTraceVersion),
        (changed(("version",), None), UnsupportedTraceVersion),
        (msgspec.msgpack.encode({"events": []}), UnsupportedTraceVersion),
        (msgspec.msgpack.encode({"version": 2}), TraceInvalid),
        (changed(("events",), {}), TraceInvalid),
        (changed(("events",), None), TraceInvalid),
        (changed(("config",), 5), TraceInvalid),
        (changed(("config",), {"trackedObjects": [1]}), TraceInvalid),
        (changed(EVENT, 7), TraceInvalid),
        (changed((*EVENT, "ts"), "now"), TraceInvalid),
        (changed((*EVENT, "ts"), -1), TraceInvalid),
        (changed((*EVENT, "ts"), 1.5), TraceInvalid),
        (changed((*EVENT, "ts"), True), TraceInvalid),
        (changed((*EVENT, "ts"), 1_700_000_000_000), TraceInvalid),
        (changed((*EVENT, "applied_objs"), None), TraceInvalid),
        (changed((*EVENT, "deleted_objs"), {}), TraceInvalid),
        (changed(MANIFEST, "web"), TraceInvalid),
        (changed((*MANIFEST, "kind"), None), TraceInvalid),
        (changed((*MANIFEST, "kind"), "Unicorn"), UnknownKind),
        (changed((*MANIFEST, "apiVersion"), 1), TraceInvalid),
        (changed((*MANIFEST, "metadata"), None), TraceInvalid),
        (changed((*MANIFEST, "metadata", "name"), ""), TraceInvalid),
        (changed((*MANIFEST, "metadata", "namespace"), 3), TraceInvalid),
        (changed((*MANIFEST, "spec"), "nothing"), InvalidManifest),
        (changed((*MANIFEST, "spec", "replicas"), -1), TraceInvalid),
        (changed((*MANIFEST, "spec", "replicas"), "three"), TraceInvalid),
        (changed((*MANIFEST, "spec", "replicas"), 10**9), TraceInvalid),
        (changed((*MANIFEST, "spec", "template"), {}), TraceInvalid),
        (changed((*REQUESTS, "cpu"), "lots"), InvalidQuantity),
        (changed((*REQUESTS, "cpu"), "-1"), InvalidQuantity),
        (changed((*REQUESTS, "cpu"), "1e400"), InvalidQuantity),
        (changed((*REQUESTS, "cpu"), [1]), InvalidQuantity),
        (changed((*REQUESTS, "memory"), "999999999Ei"), InvalidQuantity),
        (changed((*REQUESTS, "memory"), float("nan")), InvalidQuantity),
        (changed(("pod_lifecycles",), []), TraceInvalid),
        (changed(("pod_lifecycles",), {"web": {}}), TraceInvalid),
        (changed(("pod_lifecycles",), {KEY: {7: "Empty"}}), TraceInvalid),
        (changed(("pod_lifecycles",), {KEY: {7: ["Gone"]}}), TraceInvalid),
        (changed(("pod_lifecycles",), {KEY: {7: [{"Finished": [9, 1]}]}}), TraceInvalid),
        (changed(("pod_lifecycles",), {KEY: {7: [{"Running": "soon"}]}}), TraceInvalid),
        (changed((*MANIFEST, "metadata", "annotations"), DEEP), TraceInvalid),
    ],
)
def test_malformed_trace_is_a_typed_error_and_nothing_is_written(
    tmp_path: Path, data: bytes, error: type[TraceUnreadable]
) -> None:
    path = tmp_path / "bad.msgpack"
    path.write_bytes(data)
    with pytest.raises(error) as told:
        one_step(path, "default", "web", 3, options=StepOptions(workspace=tmp_path))
    assert "\n" not in str(told.value)
    assert str(path) in str(told.value)
    with pytest.raises(error):
        check_stream(path)
    assert list(tmp_path.iterdir()) == [path]


def test_events_out_of_order_are_told() -> None:
    whole = {
        **GOOD,
        "events": [
            {"ts": 5, "applied_objs": [], "deleted_objs": []},
            {"ts": 4, "applied_objs": [], "deleted_objs": []},
        ],
    }
    with pytest.raises(TraceInvalid, match="event 1"):
        check_trace(Trace.parse(msgspec.msgpack.encode(whole)))


def test_kind_that_the_trace_declares_is_allowed() -> None:
    volcano = {
        "apiVersion": "batch.volcano.sh/v1",
        "kind": "VolcanoJob",
        "metadata": {"name": "v"},
        "spec": {},
    }
    whole = deepcopy(GOOD)
    whole["events"][0]["applied_objs"].append(volcano)
    with pytest.raises(UnknownKind):
        check_trace(Trace.parse(msgspec.msgpack.encode(whole)))
    whole["config"]["trackedObjects"]["batch.volcano.sh/v1.VolcanoJob"] = {}
    check_trace(Trace.parse(msgspec.msgpack.encode(whole)))


def test_deleted_objects_need_only_a_name() -> None:
    whole = deepcopy(GOOD)
    whole["events"][0]["deleted_objs"] = [{"apiVersion": "x/v1", "kind": "Gone", "metadata": {"name": "g"}}]
    check_trace(Trace.parse(msgspec.msgpack.encode(whole)))


def test_every_kind_of_workload_passes() -> None:
    kinds = ("Deployment", "StatefulSet", "ReplicaSet", "Job")
    check_trace(trace_of([WorkloadPlan(name=kind.lower(), kind=kind) for kind in kinds]))
