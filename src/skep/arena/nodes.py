"""Node manifests for a simulated cluster, made to measure."""

from typing import Any, Final

import msgspec

from skep.arena.trace.event import Manifest


class NodePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many nodes of one size; names are `<name>-0` and on."""

    count: int = 2
    cpu: str = "2"
    memory: str = "4Gi"
    pods: int = 110
    gpus: int = 0
    name: str = "node"
    labels: dict[str, str] = {}
    taints: tuple[dict[str, str], ...] = ()


DEFAULT_NODES: Final = (NodePlan(),)
"""What the embedded driver simulates where nobody says otherwise: two nodes of 2 CPU and 4 GiB."""


def node_manifests(plans: tuple[NodePlan, ...]) -> list[Manifest]:
    """Return the manifests of all planned nodes."""
    return [_manifest(plan, number) for plan in plans for number in range(plan.count)]


def _manifest(plan: NodePlan, number: int) -> Manifest:
    name = f"{plan.name}-{number}"
    room: dict[str, Any] = {"cpu": plan.cpu, "memory": plan.memory, "pods": str(plan.pods)}
    if plan.gpus:
        room["nvidia.com/gpu"] = str(plan.gpus)
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **plan.labels}},
        "status": {"allocatable": room, "capacity": room},
    }
    if plan.taints:
        manifest["spec"] = {"taints": [dict(taint) for taint in plan.taints]}
    return manifest
