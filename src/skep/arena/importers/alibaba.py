"""Alibaba's GPU cluster trace of 2023 (`openb_pod_list*.csv`, `openb_node_list*.csv`) as SimKube events.

A pod is applied at its creation and deleted at its deletion. GPUs are shared there by thousandths: a pod asks for
`skep.dev/gpu-milli` (its GPUs times its share of each), a node gives a thousand for each GPU; that a share must lie
on one GPU is not modelled. `gpu_spec` becomes a required node affinity on the label `skep.dev/gpu-model`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from skep.arena.importers.table import Row, csv_rows
from skep.arena.trace.event import Manifest, new_event
from skep.errors.arena import TraceInvalid

GPU, MODEL = "skep.dev/gpu-milli", "skep.dev/gpu-model"
NAMESPACE: Final = "openb"
POD_COLUMNS: Final = (
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "qos",
    "creation_time",
    "deletion_time",
)
NODE_COLUMNS: Final = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
MILLI: Final = 1000
PRIORITIES: Final = {"LS": 1000, "Guaranteed": 1000, "Burstable": 500, "BE": 0}


def alibaba_events(pods: Path, nodes: Path | None = None) -> list[dict[str, Any]]:
    """Return the events, nodes first, sorted by time. Raises: TraceNotFound, TraceInvalid."""
    changes: dict[int, tuple[list[Manifest], list[Manifest]]] = {}
    for row in csv_rows(pods, POD_COLUMNS):
        manifest = _pod(row)
        created = row.whole("creation_time")
        deleted = row.whole("deletion_time", 0)
        if deleted and deleted < created:
            raise TraceInvalid(f"{row.where}: deleted before it was created", where=row.where)
        changes.setdefault(created, ([], []))[0].append(manifest)
        if deleted:
            changes.setdefault(deleted, ([], []))[1].append(manifest)
    if not changes:
        raise TraceInvalid(f"{pods}: no pods", where=str(pods))
    start = min(changes)
    if nodes is not None:
        applied = changes[start][0]
        changes[start] = ([*_nodes(nodes), *applied], changes[start][1])
    return [new_event(ts, *changes[ts]) for ts in sorted(changes)]


def _nodes(path: Path) -> Iterator[Manifest]:
    for row in csv_rows(path, NODE_COLUMNS):
        gpus = row.whole("gpu", 0)
        room = {"cpu": f"{row.whole('cpu_milli')}m", "memory": f"{row.whole('memory_mib')}Mi", "pods": "110"}
        labels = {}
        if gpus:
            room[GPU] = str(gpus * MILLI)
            labels[MODEL] = row.text("model")
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": row.text("sn"), "labels": labels},
            "status": {"allocatable": room},
        }


def _pod(row: Row) -> Manifest:
    name = row.text("name")
    if not name:
        raise TraceInvalid(f"{row.where}: a pod without a name", where=row.where)
    requests = {"cpu": f"{row.whole('cpu_milli')}m", "memory": f"{row.whole('memory_mib')}Mi"}
    gpu_milli = row.whole("num_gpu", 0) * row.whole("gpu_milli", 0)
    if gpu_milli:
        requests[GPU] = str(gpu_milli)
    spec: dict[str, Any] = {
        "containers": [
            {"name": "main", "image": "registry.example/openb:1", "resources": {"requests": requests}}
        ],
        "priority": PRIORITIES.get(row.text("qos"), 0),
    }
    models = [model for model in row.text("gpu_spec").split("|") if model]
    if models:
        term = {"matchExpressions": [{"key": MODEL, "operator": "In", "values": models}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        }
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name, "qos": row.text("qos")}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
