"""Actions change what they say, keep limits valid, stop at floors and safeguards, and touch nothing else."""

from typing import Any

import pytest

from skep.arena.actions import ACTIONS, BUILT_IN, ActionMask, apply_action, register_action
from skep.arena.safeguards import Safeguards
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.trace.trace import Trace
from skep.arena.workload import Resources, WorkloadRef, find_resources, pod_labels
from skep.errors.arena import DeploymentNotFound, UnknownName

WEB = WorkloadRef("default", "web")
BOUNDS = Safeguards()
MIB = 1 << 20


def containers(trace: Trace, event: int = 0) -> list[dict[str, Any]]:
    return trace.event(event)["applied_objs"][0]["spec"]["template"]["spec"]["containers"]


def test_raising_a_request_above_its_limit_raises_the_limit() -> None:
    trace = trace_of([WorkloadPlan(cpu="500m", cpu_limit="600m", memory="256Mi", memory_limit="1Gi")])
    after, info = apply_action(trace, WEB, "bump_cpu_small", BOUNDS)
    assert info.changed
    assert containers(after)[0]["resources"] == {
        "requests": {"cpu": "1", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }


def test_lowering_a_request_leaves_the_limit() -> None:
    trace = trace_of([WorkloadPlan(cpu="1", cpu_limit="2")])
    after, _ = apply_action(trace, WEB, "reduce_cpu_small", BOUNDS)
    assert containers(after)[0]["resources"]["limits"] == {"cpu": "2"}


def test_limit_stands_for_a_request_that_is_not_there() -> None:
    trace = trace_of([WorkloadPlan()])
    event = trace.event(0)
    event["applied_objs"][0]["spec"]["template"]["spec"]["containers"][0]["resources"] = {
        "limits": {"cpu": "1"}
    }
    after, _ = apply_action(trace.with_events({0: event}), WEB, "bump_cpu_small", BOUNDS)
    assert containers(after)[0]["resources"] == {"limits": {"cpu": "1500m"}, "requests": {"cpu": "1500m"}}


def test_all_containers_change_or_only_the_one_named() -> None:
    trace = trace_of([WorkloadPlan(cpu="1", containers=3)])
    everywhere, _ = apply_action(trace, WEB, "bump_cpu_small", BOUNDS)
    assert [one["resources"]["requests"]["cpu"] for one in containers(everywhere)] == ["1500m"] * 3
    only = WorkloadRef("default", "web", None, "side-1")
    named, _ = apply_action(trace, only, "bump_cpu_small", BOUNDS)
    assert [one["resources"]["requests"]["cpu"] for one in containers(named)] == ["1", "1500m", "1"]
    assert find_resources(named, only).cpu_m == 1500


def test_same_name_in_another_namespace_or_of_another_kind_is_left_alone() -> None:
    plans = [WorkloadPlan(), WorkloadPlan(namespace="other"), WorkloadPlan(kind="StatefulSet")]
    trace = trace_of(plans)
    after, _ = apply_action(trace, WorkloadRef("default", "web", "StatefulSet"), "scale_up_replicas", BOUNDS)
    assert after.events[:2] == trace.events[:2]
    assert after.events[2] != trace.events[2]


def test_every_appearance_of_the_workload_changes() -> None:
    trace = trace_of([WorkloadPlan(replicas=2), WorkloadPlan(name="x"), WorkloadPlan(replicas=7)])
    after, _ = apply_action(trace, WEB, "scale_up_replicas", BOUNDS)
    assert [after.event(at)["applied_objs"][0]["spec"]["replicas"] for at in range(3)] == [3, 3, 8]
    assert after.events[1] == trace.events[1]


@pytest.mark.parametrize(
    ("plan", "action", "floor"),
    [
        (
            WorkloadPlan(cpu="300m"),
            "reduce_cpu_small",
            Resources(cpu_m=50, memory_bytes=256 * MIB, replicas=3),
        ),
        (
            WorkloadPlan(memory="100Mi"),
            "reduce_mem_small",
            Resources(cpu_m=500, memory_bytes=64 * MIB, replicas=3),
        ),
        (
            WorkloadPlan(replicas=2),
            "scale_down_replicas",
            Resources(cpu_m=500, memory_bytes=256 * MIB, replicas=1),
        ),
    ],
)
def test_floors_hold(plan: WorkloadPlan, action: str, floor: Resources) -> None:
    once, _ = apply_action(trace_of([plan]), WEB, action, BOUNDS)
    assert find_resources(once, WEB) == floor
    twice, info = apply_action(once, WEB, action, BOUNDS)
    assert twice is once
    assert (info.changed, info.blocked) == (False, False)


@pytest.mark.parametrize("plan", [WorkloadPlan(cpu="10m", memory="8Mi"), WorkloadPlan(replicas=0)])
def test_what_lies_below_the_floor_is_not_raised_by_reducing(plan: WorkloadPlan) -> None:
    trace = trace_of([plan])
    before = find_resources(trace, WEB)
    for action in ("reduce_cpu_small", "reduce_mem_small", "scale_down_replicas"):
        after = find_resources(apply_action(trace, WEB, action, BOUNDS)[0], WEB)
        assert after.cpu_m <= before.cpu_m
        assert after.memory_bytes <= before.memory_bytes
        assert after.replicas <= before.replicas


@pytest.mark.parametrize(
    ("plan", "action"),
    [
        (WorkloadPlan(cpu="15600m"), "bump_cpu_small"),
        (WorkloadPlan(memory="32Gi"), "bump_mem_small"),
        (WorkloadPlan(replicas=100), "scale_up_replicas"),
    ],
)
def test_safeguards_block_and_leave_the_trace(plan: WorkloadPlan, action: str) -> None:
    trace = trace_of([plan])
    after, info = apply_action(trace, WEB, action, BOUNDS)
    assert after is trace
    assert (info.changed, info.blocked) == (False, True)
    assert "safeguards" in info.reason


def test_step_back_from_beyond_the_safeguards_is_allowed() -> None:
    trace = trace_of([WorkloadPlan(cpu="20", memory="40Gi", replicas=120)])
    for action in ("reduce_cpu_small", "reduce_mem_small", "scale_down_replicas"):
        assert apply_action(trace, WEB, action, BOUNDS)[1].changed
    assert apply_action(trace, WEB, "bump_cpu_small", BOUNDS)[1].blocked


def test_mask_tells_what_would_do_anything() -> None:
    trace = trace_of([WorkloadPlan(cpu="16", memory="64Mi", replicas=1)])
    assert ActionMask(trace, WEB, BOUNDS) == {
        "noop": True,
        "bump_cpu_small": False,
        "bump_mem_small": True,
        "scale_up_replicas": True,
        "reduce_cpu_small": True,
        "reduce_mem_small": False,
        "scale_down_replicas": False,
    }


@pytest.mark.parametrize(
    "memory", ["1Gi", "1024Mi", "1048576Ki", "1073741824", "1.0Gi", "1e9", "1G", "1073741824000m"]
)
def test_quantities_in_every_suffix_are_understood(memory: str) -> None:
    trace = trace_of([WorkloadPlan(memory=memory)])
    before = find_resources(trace, WEB).memory_bytes
    after = find_resources(apply_action(trace, WEB, "bump_mem_small", BOUNDS)[0], WEB).memory_bytes
    assert after == before + 256 * MIB


def test_job_scales_its_parallelism_and_completions_together() -> None:
    trace = trace_of([WorkloadPlan(kind="Job", replicas=4)])
    after, _ = apply_action(trace, WEB, "scale_up_replicas", BOUNDS)
    spec = after.event(0)["applied_objs"][0]["spec"]
    assert (spec["parallelism"], spec["completions"]) == (5, 5)


def test_unknown_names_are_told() -> None:
    trace = trace_of([WorkloadPlan()])
    with pytest.raises(UnknownName, match="noop"):
        apply_action(trace, WEB, "teleport", BOUNDS)
    with pytest.raises(DeploymentNotFound):
        apply_action(trace, WorkloadRef("default", "db"), "bump_cpu_small", BOUNDS)
    with pytest.raises(DeploymentNotFound, match="container"):
        find_resources(trace, WorkloadRef("default", "web", None, "none"))


def test_actions_can_be_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.arena.actions.ACTIONS", dict(ACTIONS))

    def halve(manifest: dict[str, Any], container: str | None) -> bool:
        manifest["spec"]["replicas"] //= 2
        return True

    register_action("halve", halve)
    after, info = apply_action(trace_of([WorkloadPlan(replicas=8)]), WEB, "halve", BOUNDS)
    assert info.changed
    assert find_resources(after, WEB).replicas == 4
    with pytest.raises(ValueError, match="halve"):
        register_action("halve", halve)
    assert tuple(ACTIONS) == BUILT_IN


def test_selector_labels_are_read() -> None:
    assert pod_labels(trace_of([WorkloadPlan()]), WEB) == {"app": "web"}
