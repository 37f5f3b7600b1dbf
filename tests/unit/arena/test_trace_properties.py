"""Properties of traces over generated data: bytes survive, edits are exact, JSON loses nothing."""

from typing import Any

import msgpack
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.arena.actions import BUILT_IN, apply_action
from skep.arena.safeguards import Safeguards
from skep.arena.trace.convert import from_plain, to_plain
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.trace.trace import Trace
from skep.arena.workload import WorkloadRef, find_resources

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.text() | st.integers(0, 2**64 - 1) | st.lists(st.text(), min_size=1, max_size=3).map(tuple)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"ts": st.integers(0, 2**33), "applied_objs": st.just([]), "deleted_objs": st.just([])},
        optional={"extra": VALUES},
    ),
    max_size=6,
)
OTHERS = st.dictionaries(st.text().filter(lambda key: key not in ("version", "events")), VALUES, max_size=4)


def packed(value: Any, *, is_wide: bool) -> bytes:
    """Encode as another library does; wide: lengths and numbers in longer forms than needed, where it is easy."""
    if is_wide and isinstance(value, list):
        return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(packed(one, is_wide=True) for one in value)
    if is_wide and isinstance(value, dict):
        parts = (packed(key, is_wide=False) + packed(one, is_wide=True) for key, one in value.items())
        return b"\xdf" + len(value).to_bytes(4, "big") + b"".join(parts)
    return bytes(msgpack.packb(value, strict_types=False))


@settings(deadline=None, max_examples=150)
@given(events=EVENTS, others=OTHERS, is_wide=st.booleans(), is_version_last=st.booleans())
def test_whatever_is_read_is_written_byte_for_byte(
    events: list[Any], others: dict[str, Any], is_wide: bool, is_version_last: bool
) -> None:
    whole = (
        {"events": events, **others, "version": 2}
        if is_version_last
        else {"version": 2, **others, "events": events}
    )
    data = packed(whole, is_wide=is_wide)
    trace = Trace.parse(data)
    assert trace.to_bytes() == data
    assert len(trace.events) == len(events)


@settings(deadline=None, max_examples=100)
@given(events=EVENTS.filter(bool), at=st.integers(0, 5), ts=st.integers(0, 2**33))
def test_replacing_an_event_changes_that_event_alone(events: list[Any], at: int, ts: int) -> None:
    trace = Trace.parse(msgspec.msgpack.encode({"version": 2, "events": events}))
    at %= len(events)
    changed = trace.with_events({at: {**trace.event(at), "ts": ts}})
    again = Trace.parse(changed.to_bytes())
    assert again.event(at)["ts"] == ts
    assert again.events[:at] + again.events[at + 1 :] == trace.events[:at] + trace.events[at + 1 :]


@settings(deadline=None, max_examples=60)
@given(
    replicas=st.integers(0, 200),
    cpu_m=st.integers(1, 40_000),
    memory_mib=st.integers(1, 70_000),
    limit_m=st.none() | st.integers(1, 40_000),
    path=st.lists(st.sampled_from(BUILT_IN), max_size=8),
)
def test_actions_keep_requests_below_limits_and_within_bounds(
    replicas: int, cpu_m: int, memory_mib: int, limit_m: int | None, path: list[str]
) -> None:
    limit = None if limit_m is None else f"{max(limit_m, cpu_m)}m"
    trace = trace_of(
        [WorkloadPlan(replicas=replicas, cpu=f"{cpu_m}m", memory=f"{memory_mib}Mi", cpu_limit=limit)]
    )
    web, bounds = WorkloadRef("default", "web"), Safeguards()
    for action in path:
        before = find_resources(trace, web)
        trace, info = apply_action(trace, web, action, bounds)
        after = find_resources(trace, web)
        assert (before != after) is info.changed
        assert after.cpu_m <= max(bounds.cpu_m_max, before.cpu_m)
        assert after.memory_bytes <= max(bounds.memory_bytes_max, before.memory_bytes)
        assert after.replicas <= max(bounds.replicas_max, before.replicas)
    container = trace.event(0)["applied_objs"][0]["spec"]["template"]["spec"]["containers"][0]
    if limit is not None:
        plan = WorkloadPlan(cpu=container["resources"]["limits"]["cpu"])
        assert find_resources(trace_of([plan]), web).cpu_m >= find_resources(trace, web).cpu_m


@settings(deadline=None, max_examples=60)
@given(
    hashes=st.dictionaries(st.integers(0, 2**64 - 1), st.lists(st.just("Empty"), max_size=2), max_size=3),
    name=st.text(min_size=1),
)
def test_json_form_loses_nothing(hashes: dict[int, list[str]], name: str) -> None:
    base = trace_of([WorkloadPlan()])
    whole = {
        "version": 2,
        "config": {},
        "events": base.decoded(),
        "index": {},
        "pod_lifecycles": {("v1.Pod", name): hashes},
    }
    trace = Trace.parse(msgspec.msgpack.encode(whole))
    plain = msgspec.json.decode(msgspec.json.encode(to_plain(trace)))
    assert from_plain(plain, "back").to_bytes() == trace.to_bytes()
