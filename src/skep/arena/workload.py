"""The workload that a step is about: where a trace applies it, and what it asks for.

A workload is a Deployment, StatefulSet, ReplicaSet or Job, named by namespace and name. A Job's `parallelism` is
its replicas.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from skep.arena.quantity import amount
from skep.arena.trace.event import Manifest
from skep.arena.trace.trace import Trace
from skep.errors.arena import DeploymentNotFound, TraceInvalid

WORKLOAD_KINDS: Final = ("Deployment", "StatefulSet", "ReplicaSet", "Job")


class WorkloadRef(msgspec.Struct, frozen=True):
    """Which workload: `kind` and `container` are None for whatever has the name, and for all its containers."""

    namespace: str
    name: str
    kind: str | None = None
    container: str | None = None

    def is_named_by(self, manifest: Manifest) -> bool:
        """Tell whether a manifest is of this workload."""
        kind = manifest.get("kind")
        metadata = manifest.get("metadata") or {}
        return (
            kind in WORKLOAD_KINDS
            and metadata.get("name") == self.name
            and metadata.get("namespace", "default") == self.namespace
            and self.kind in (None, kind)
        )


class Resources(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one pod of a workload requests (the sum over the containers that are meant), and how many pods."""

    cpu_m: int
    memory_bytes: int
    replicas: int


def containers_of(manifest: Manifest, container: str | None = None) -> list[dict[str, Any]]:
    """Return the containers of a workload's pod template: all, or the one named (none where it has no such)."""
    try:
        found = manifest["spec"]["template"]["spec"]["containers"]
    except (KeyError, TypeError):
        return []
    if not isinstance(found, list):
        raise TraceInvalid(
            f"containers of {manifest['metadata']['name']}: a list, not {type(found).__name__}",
            where="containers",
        )
    return [one for one in found if container in (None, one.get("name"))]


def request_of(container: dict[str, Any], resource: str) -> int:
    """Return a container's request in millicores or bytes; like Kubernetes, its limit where it has no request."""
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}).get(resource, (resources.get("limits") or {}).get(resource, 0))
    return amount(resource, asked)


def replicas_field(manifest: Manifest) -> str:
    """Name the field of `spec` that says how many pods run at once."""
    return "parallelism" if manifest["kind"] == "Job" else "replicas"


def resources_of(manifest: Manifest, container: str | None = None) -> Resources:
    """Read what a manifest asks for."""
    chosen = containers_of(manifest, container)
    replicas = (manifest.get("spec") or {}).get(replicas_field(manifest), 1)
    return Resources(
        cpu_m=sum(request_of(one, "cpu") for one in chosen),
        memory_bytes=sum(request_of(one, "memory") for one in chosen),
        replicas=1 if replicas is None else replicas,
    )


def appearances(trace: Trace, workload: WorkloadRef) -> Iterator[tuple[int, dict[str, Any], list[Manifest]]]:
    """Yield each event that applies the workload: its position, the event, and the workload's manifests in it."""
    needle = workload.name.encode()
    for position, raw in enumerate(trace.events):
        if needle not in raw:
            continue
        event = trace.event(position)
        found = [one for one in event.get("applied_objs", ()) if workload.is_named_by(one)]
        if found:
            yield position, event, found


def find_resources(trace: Trace, workload: WorkloadRef) -> Resources:
    """Read what the trace last asks for this workload. Raises: DeploymentNotFound."""
    last: Manifest | None = None
    for _, _, found in appearances(trace, workload):
        last = found[-1]
    if last is None:
        raise DeploymentNotFound(
            f"{trace.name}: nothing named {workload.name!r} is applied in namespace {workload.namespace!r}; "
            "`skep arena trace info` lists what is",
            namespace=workload.namespace,
            deployment=workload.name,
        )
    if workload.container and not containers_of(last, workload.container):
        raise DeploymentNotFound(
            f"{trace.name}: {workload.name!r} has no container {workload.container!r}",
            namespace=workload.namespace,
            deployment=workload.name,
        )
    return resources_of(last, workload.container)


def pod_labels(trace: Trace, workload: WorkloadRef) -> dict[str, str]:
    """Return the labels that the workload's selector asks of its pods; empty where the trace does not say."""
    labels: dict[str, str] = {}
    for _, _, found in appearances(trace, workload):
        selector = (found[-1].get("spec") or {}).get("selector") or {}
        labels = dict(selector.get("matchLabels") or {})
    return labels
