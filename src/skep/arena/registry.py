"""Objects applied and deleted, and the controller that each workload belongs to."""

from collections.abc import Iterable
from typing import TypeVar

from skep.arena.cluster import Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.node_life import NodeLife
from skep.arena.objects import (
    Deployment,
    DisruptionBudget,
    Inert,
    Job,
    Namespace,
    Node,
    Parsed,
    Pod,
    PriorityClass,
    ReplicaSet,
    Service,
    StatefulSet,
    Workload,
)
from skep.arena.scheduler.loop import SchedulerLoop
from skep.arena.state import PodState, WorkloadState
from skep.arena.workloads.deployment import DeploymentController
from skep.arena.workloads.job import JobController
from skep.arena.workloads.names import revision_of
from skep.arena.workloads.replica_set import ReplicaSetController
from skep.arena.workloads.stateful_set import StatefulSetController
from skep.errors.arena import ObjectNotFound

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "ReplicaSet", "Job")


class Registry:
    """The declared objects."""

    def __init__(
        self, cluster: Cluster, kubelet: Kubelet, node_life: NodeLife, scheduler: SchedulerLoop
    ) -> None:
        self._cluster, self._kubelet, self._node_life, self._scheduler = (
            cluster,
            kubelet,
            node_life,
            scheduler,
        )
        self._jobs = JobController(cluster, kubelet)
        deployments = DeploymentController(cluster)
        self._controllers = {
            ReplicaSet: ReplicaSetController(cluster, kubelet).reconcile,
            Deployment: deployments.reconcile,
            StatefulSet: StatefulSetController(cluster, kubelet).reconcile,
            Job: self._jobs.reconcile,
        }

    def apply(self, found: Parsed, lifetimes_us: list[int]) -> None:
        """Take up a declared object."""
        cluster = self._cluster
        match found:
            case Deployment() | ReplicaSet() | StatefulSet() | Job():
                self._apply_workload(found, lifetimes_us)
            case Node():
                self._node_life.apply(found)
            case Pod():
                self._apply_pod(found, lifetimes_us)
            case PriorityClass():
                cluster.priorities[found.name] = found
            case DisruptionBudget():
                cluster.budgets[f"{found.namespace}/{found.name}"] = found
            case Namespace():
                cluster.namespaces[found.name] = found.labels
                cluster.table.invalidate()
            case Service():
                cluster.services[f"{found.namespace}/{found.name}"] = found
            case Inert():
                cluster.inert[f"{found.kind}/{found.namespace}/{found.name}"] = found

    def _apply_workload(self, spec: Workload, lifetimes_us: list[int]) -> None:
        cluster = self._cluster
        key = (type(spec).__name__, spec.namespace, spec.name)
        uid = cluster.workload_uids.get(key)
        if uid is None:
            workload = WorkloadState(cluster.uid(), spec)
            cluster.workloads[workload.uid] = workload
            cluster.workload_uids[key] = workload.uid
            cluster.log("Applied", f"{key[0]}/{workload.key}")
        else:
            workload = cluster.workloads[uid]
            if workload.spec != spec:
                cluster.log("Changed", f"{key[0]}/{workload.key}")
            workload.spec = spec
        if lifetimes_us:
            workload.lifetimes_us = lifetimes_us
        if isinstance(spec, Deployment | StatefulSet):
            workload.revision = revision_of(spec.template)
        workload.rolled = False
        cluster.dirty[workload.uid] = None

    def _apply_pod(self, found: Pod, lifetimes_us: list[int]) -> None:
        """Create a pod; one of this name that is still leaving is gone at once."""
        cluster = self._cluster
        uid = cluster.pod_uids.get(f"{found.namespace}/{found.name}")
        cls = cluster.pod_classes.of(found.namespace, found.template, None)
        if uid is not None and cluster.pods[uid].deleting:
            cluster.forget(cluster.pods[uid])
            uid = None
        if uid is None:
            pod = cluster.create_pod(found.name, cls, None)
            if lifetimes_us:
                pod.runs_us = lifetimes_us[0]
            return
        pod = cluster.pods[uid]
        if pod.reason == "SchedulingGated" and not found.template.gates:
            cluster.reclass(pod, cls)
            pod.reason = ""
            self._scheduler.on_pending(pod)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Remove an object and what it owns. Raises: ObjectNotFound."""
        cluster = self._cluster
        key = f"{namespace}/{name}"
        if kind in WORKLOAD_KINDS:
            self._delete_workload(kind, namespace, name)
        elif kind == "Node":
            self._node_life.remove(cluster.nodes[_held(cluster.node_ids, name, kind)])
        elif kind == "Pod":
            self._kubelet.delete(cluster.pods[_held(cluster.pod_uids, key, kind)], "deleted")
        elif kind == "PriorityClass":
            _held(cluster.priorities, name, kind)
            del cluster.priorities[name]
        elif kind == "PodDisruptionBudget":
            _held(cluster.budgets, key, kind)
            del cluster.budgets[key]
        elif kind == "Service":
            _held(cluster.services, key, kind)
            del cluster.services[key]
        elif kind == "Namespace":
            _held(cluster.namespaces, name, kind)
            del cluster.namespaces[name]
            self._empty_namespace(name)
        else:
            _held(cluster.inert, f"{kind}/{key}", kind)
            del cluster.inert[f"{kind}/{key}"]

    def _empty_namespace(self, name: str) -> None:
        cluster = self._cluster
        for kind, namespace, workload in list(cluster.workload_uids):
            if namespace == name and (kind, namespace, workload) in cluster.workload_uids:
                self._delete_workload(kind, namespace, workload)
        for pod in [pod for pod in cluster.pods.values() if pod.namespace == name]:
            self._kubelet.delete(pod, "namespace deleted")

    def _delete_workload(self, kind: str, namespace: str, name: str) -> None:
        cluster = self._cluster
        key = (kind, namespace, name)
        uid = _held(cluster.workload_uids, key, kind)
        workload = cluster.workloads[uid]
        cluster.log("Removed", f"{key[0]}/{workload.key}")
        for child in list(workload.children):
            owned = cluster.workloads[child].spec
            self._delete_workload(type(owned).__name__, owned.namespace, owned.name)
        if workload.owner:
            cluster.workloads[workload.owner].children.pop(uid, None)
        del cluster.workloads[uid]
        del cluster.workload_uids[key]
        cluster.dirty.pop(uid, None)
        for pod_uid in list(workload.pods):
            self._kubelet.delete(cluster.pods[pod_uid], "owner deleted")

    def reconcile(self, uid: int) -> None:
        """Let a workload's controller look."""
        workload = self._cluster.workloads.get(uid)
        if workload is not None:
            self._controllers[type(workload.spec)](workload)

    def wake(self, uid: int, _: int) -> None:
        """A workload's timer came due."""
        workload = self._cluster.workloads.get(uid)
        if workload is None:
            return
        if self._jobs.is_expired(workload):
            spec = workload.spec
            self._delete_workload(type(spec).__name__, spec.namespace, spec.name)
        else:
            self._cluster.dirty[uid] = None

    def workload(self, namespace: str, name: str) -> WorkloadState | None:
        """Return the workload of this name, of whatever kind."""
        for kind in WORKLOAD_KINDS:
            uid = self._cluster.workload_uids.get((kind, namespace, name))
            if uid is not None:
                return self._cluster.workloads[uid]
        return None

    def pods_of(self, namespace: str, name: str) -> Iterable[PodState]:
        """Return a workload's pods, or else those labelled `app=<name>`. Raises: ObjectNotFound."""
        cluster = self._cluster
        workload = self.workload(namespace, name)
        if workload is not None:
            owners = [workload, *(cluster.workloads[uid] for uid in workload.children)]
            return [cluster.pods[uid] for owner in owners for uid in owner.pods]
        found = [
            pod
            for pod in cluster.pods.values()
            if pod.namespace == namespace and cluster.classes[pod.cls].template.labels.get("app") == name
        ]
        if not found:
            raise _missing("workload", f"{namespace}/{name}")
        return found


K = TypeVar("K")
V = TypeVar("V")


def _held(held: dict[K, V], key: K, kind: str) -> V:
    """Return what is held under a key. Raises: ObjectNotFound."""
    try:
        return held[key]
    except KeyError:
        raise _missing(kind, str(key)) from None


def _missing(kind: str, name: str) -> ObjectNotFound:
    return ObjectNotFound(f"the simulated cluster has no {kind} {name}", kind=kind, name=name)
