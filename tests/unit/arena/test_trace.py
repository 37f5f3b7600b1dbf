"""Traces come back byte for byte, in memory and as streams, whatever they hold beside what we know."""

import warnings

import msgpack
import msgspec
import pytest

from skep.arena.trace.convert import convert, from_plain, read_any, to_plain, upgraded
from skep.arena.trace.diff import diff_traces
from skep.arena.trace.event import new_event
from skep.arena.trace.generate import WorkloadPlan, demo_trace, random_events, trace_of
from skep.arena.trace.info import trace_info
from skep.arena.trace.scan import OldTraceVersion
from skep.arena.trace.stream import check_stream, iter_events, rewrite, write_stream
from skep.arena.trace.trace import Trace, read_trace
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceTruncated, TraceUnreadable

LIFECYCLES = {
    ("apps/v1.Deployment", "default/web"): {
        14695981039346656037: [{"Finished": [1, 9]}, {"Running": 3}, "Empty"],
    }
}


def foreign_bytes() -> bytes:
    """A trace as another writer may write it: long forms, unknown keys, array keys, another order."""
    packer = msgpack.Packer()
    event = packer.pack(
        {"ts": 1, "applied_objs": [], "deleted_objs": [], "vendor": {"x": [1, None, b"\x00"]}}
    )
    return (
        b"\xde\x00\x06"
        + packer.pack("index")
        + packer.pack({})
        + packer.pack("version")
        + b"\xcd\x00\x02"
        + packer.pack("events")
        + b"\xdd\x00\x00\x00\x02"
        + event
        + event
        + packer.pack("config")
        + packer.pack({"trackedObjects": {}})
        + packer.pack("vendorKey")
        + packer.pack([1, 2.5, "ü"])
        + packer.pack("pod_lifecycles")
        + msgspec.msgpack.encode(LIFECYCLES)
    )


def test_unchanged_trace_comes_back_byte_for_byte() -> None:
    data = foreign_bytes()
    assert Trace.parse(data).to_bytes() == data


def test_array_keys_and_64_bit_hashes_are_read() -> None:
    assert Trace.parse(foreign_bytes()).section("pod_lifecycles") == LIFECYCLES


def test_editing_one_event_leaves_every_other_byte_alone() -> None:
    trace = Trace.parse(foreign_bytes())
    changed = trace.with_events({1: {**trace.event(1), "ts": 7}})
    assert changed.events[0] == trace.events[0]
    assert changed.event(1)["vendor"] == {"x": [1, None, b"\x00"]}
    head, tail = trace.to_bytes().split(trace.events[0] + trace.events[1])
    assert changed.to_bytes() == head + changed.events[0] + changed.events[1] + tail


def test_version_1_is_read_with_a_warning_and_upgraded_on_demand() -> None:
    data = msgspec.msgpack.encode({"version": 1, "events": [new_event(5)], "extra": 3})
    with pytest.warns(OldTraceVersion):
        trace = Trace.parse(data)
    assert trace.version == 1
    assert trace.to_bytes() == data
    newer = upgraded(trace)
    assert newer.version == 2
    assert newer.events == trace.events
    assert newer.section("extra") == 3
    assert newer.section("pod_lifecycles") == {}


def test_missing_file_is_told() -> None:
    with pytest.raises(TraceNotFound):
        read_trace(__import__("pathlib").Path("/nonexistent/trace.msgpack"))


def test_folder_is_unreadable(tmp_path) -> None:
    with pytest.raises(TraceUnreadable):
        read_trace(tmp_path)


def test_json_form_round_trips(tmp_path) -> None:
    trace = Trace.parse(trace_of([WorkloadPlan()]).to_bytes())
    whole = to_plain(trace) | {"pod_lifecycles": [[["apps/v1.Deployment", "default/web"], {"7": ["Empty"]}]]}
    back = from_plain(whole, "back")
    assert back.section("pod_lifecycles") == {("apps/v1.Deployment", "default/web"): {7: ["Empty"]}}
    source, middle, target = tmp_path / "a.msgpack", tmp_path / "b.json", tmp_path / "c.msgpack"
    source.write_bytes(back.to_bytes())
    convert(source, middle)
    convert(middle, target)
    assert read_any(target) == back
    assert target.read_bytes() == source.read_bytes()


def test_diff_names_the_path_and_both_values() -> None:
    before = trace_of([WorkloadPlan()])
    after = trace_of([WorkloadPlan(replicas=5)])
    (found,) = diff_traces(before, after)
    assert found.path == "events[0].applied_objs[0].spec.replicas"
    assert (found.before, found.after) == (3, 5)
    assert list(diff_traces(before, before)) == []


def test_info_lists_workloads(tmp_path) -> None:
    path = tmp_path / "t.msgpack"
    path.write_bytes(
        trace_of([WorkloadPlan(), WorkloadPlan(name="db", kind="StatefulSet", cpu="2")]).to_bytes()
    )
    info = trace_info(path)
    assert info.events == info.applied == 2
    assert info.workloads["default/db"] == {
        "kind": "StatefulSet",
        "replicas": 3,
        "cpu_m": 2000,
        "memory_bytes": 256 << 20,
    }
    assert info.sha256 == read_trace(path).sha256


def test_stream_equals_what_is_read_whole(tmp_path) -> None:
    path = tmp_path / "t.msgpack"
    write_stream(path, random_events(500, seed=3), 500)
    trace = read_trace(path)
    assert tuple(iter_events(path)) == trace.events
    assert check_stream(path).sha256 == trace.sha256


def test_streamed_rewrite_of_nothing_is_the_same_file(tmp_path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(foreign_bytes())
    assert rewrite(source, target, lambda position, raw: None) == 0
    assert target.read_bytes() == source.read_bytes()


def test_streamed_rewrite_of_a_truncated_trace_writes_nothing(tmp_path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(demo_trace().to_bytes()[:-3])
    with pytest.raises(TraceTruncated):
        rewrite(source, target, lambda position, raw: None)
    assert list(tmp_path.iterdir()) == [source]


def test_every_truncation_is_told_as_one() -> None:
    data = demo_trace().to_bytes()
    for end in range(len(data)):
        with pytest.raises(TraceTruncated):
            Trace.parse(data[:end])


def test_any_flipped_byte_is_a_typed_error_or_a_trace() -> None:
    data = demo_trace().to_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldTraceVersion)
        for position in range(len(data)):
            for value in (0x00, 0xC1, 0xFF, data[position] ^ 0x80):
                spoiled = data[:position] + bytes([value]) + data[position + 1 :]
                try:
                    assert Trace.parse(spoiled).to_bytes() == spoiled
                except TraceUnreadable:
                    continue


def test_generated_events_follow_from_the_seed() -> None:
    assert list(random_events(50, 1)) == list(random_events(50, 1))
    assert list(random_events(50, 1)) != list(random_events(50, 2))


def test_stream_with_another_count_than_announced_leaves_nothing(tmp_path) -> None:
    with pytest.raises(TraceInvalid):
        write_stream(tmp_path / "t", iter([new_event(1)]), 2)
    assert list(tmp_path.iterdir()) == []
