"""Traces made to order: workloads with what they ask for and really use, by a seed, one event a change."""

import random
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from skep.arena.trace.event import Manifest, kind_key, name_key, new_event
from skep.arena.trace.trace import Trace

EPOCH_TS: Final = 1_700_000_000
TRACKED: Final = ("apps/v1.Deployment", "apps/v1.ReplicaSet", "apps/v1.StatefulSet", "batch/v1.Job")


class WorkloadPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload to put into a trace. `usage` becomes pod annotations that say what a pod really does."""

    name: str = "web"
    namespace: str = "default"
    kind: str = "Deployment"
    replicas: int = 3
    cpu: str = "500m"
    memory: str = "256Mi"
    cpu_limit: str | None = None
    memory_limit: str | None = None
    containers: int = 1
    annotations: dict[str, str] = {}
    extra: dict[str, Any] = {}


def manifest_of(plan: WorkloadPlan) -> Manifest:
    """Return the Kubernetes manifest of a plan."""
    limits = {key: value for key, value in (("cpu", plan.cpu_limit), ("memory", plan.memory_limit)) if value}
    resources: dict[str, Any] = {"requests": {"cpu": plan.cpu, "memory": plan.memory}}
    if limits:
        resources["limits"] = limits
    names = ["app", *(f"side-{number}" for number in range(1, plan.containers))]
    containers = [
        {"name": name, "image": f"registry.example/{plan.name}:1", "resources": resources} for name in names
    ]
    labels = {"app": plan.name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **plan.extra}}
    if plan.annotations:
        template["metadata"]["annotations"] = plan.annotations
    metadata = {"name": plan.name, "namespace": plan.namespace, "labels": labels}
    if plan.kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
        spec = {"parallelism": plan.replicas, "completions": plan.replicas, "template": template}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    spec = {"replicas": plan.replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": plan.kind, "metadata": metadata, "spec": spec}


def trace_of(plans: list[WorkloadPlan], *, name: str = "generated", gap_s: int = 1) -> Trace:
    """Return a trace that applies these workloads, one event each, `gap_s` apart."""
    manifests = [manifest_of(plan) for plan in plans]
    events = [new_event(EPOCH_TS + gap_s * number, [manifest]) for number, manifest in enumerate(manifests)]
    index: dict[str, dict[str, int]] = {}
    for manifest in manifests:
        index.setdefault(kind_key(manifest), {})[name_key(manifest)] = 0
    return Trace.build(events, name=name, config=tracked_config(), index=index)


def tracked_config() -> dict[str, Any]:
    """Return the configuration of a tracer that tracks every workload kind."""
    return {"trackedObjects": {kind: {"podSpecTemplatePaths": ["/spec/template"]} for kind in TRACKED}}


def demo_trace() -> Trace:
    """Return the demonstration: three replicas that ask for too much, on the default nodes."""
    return trace_of([WorkloadPlan(replicas=3, cpu="500m", memory="256Mi")], name="demo")


def random_events(count: int, seed: int, workloads: int = 100) -> Iterator[dict[str, Any]]:
    """Yield `count` events of deployments that come, change and go; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - a seeded choice, not a secret
    for number in range(count):
        plan = WorkloadPlan(
            name=f"app-{rng.randrange(workloads)}",
            replicas=rng.randint(1, 10),
            cpu=f"{rng.randrange(50, 4000, 50)}m",
            memory=f"{rng.randrange(64, 8192, 64)}Mi",
        )
        manifest = manifest_of(plan)
        is_deleted = rng.random() < 0.1  # noqa: PLR2004 - one event in ten
        yield new_event(EPOCH_TS + number, [] if is_deleted else [manifest], [manifest] if is_deleted else [])
