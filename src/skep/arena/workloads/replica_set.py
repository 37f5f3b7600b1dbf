"""ReplicaSet: as many pods as declared; the surplus goes in the documented order."""

import math
from typing import Any

from skep.arena.cluster import Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.objects import ReplicaSet
from skep.arena.state import NOWHERE, PodState, WorkloadState
from skep.arena.workloads.names import pod_suffix


class ReplicaSetController:
    """Creates and deletes pods."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster, self._kubelet = cluster, kubelet

    def reconcile(self, workload: WorkloadState) -> None:
        """Bring the number of active pods to what is declared."""
        spec = workload.spec
        assert isinstance(spec, ReplicaSet)
        missing = spec.replicas - workload.active
        if missing > 0:
            cluster = self._cluster
            cls = cluster.pod_classes.of(spec.namespace, spec.template, workload)
            prefix = f"{spec.name}-"
            for _ in range(missing):
                name = prefix + pod_suffix(cluster.next_uid)
                cluster.create_pod(name, cls, workload, revision=workload.revision)
        elif missing < 0:
            for pod in self.surplus(workload, -missing):
                self._kubelet.delete(pod, "scaled down")
        if workload.owner:
            if not workload.rolled:
                self._cluster.dirty[workload.owner] = None
        else:
            workload.rolled = True

    def surplus(self, workload: WorkloadState, count: int) -> list[PodState]:
        """Return the pods to delete first (`ActivePodsWithRanks`)."""
        cluster = self._cluster
        pods = [pod for uid in workload.pods if (pod := cluster.pods[uid]).is_active]
        crowd: dict[int, int] = {}
        for pod in pods:
            crowd[pod.node] = crowd.get(pod.node, 0) + 1
        now_us = cluster.timeline.now_us

        def rank(pod: PodState) -> tuple[Any, ...]:
            return (
                pod.node != NOWHERE,
                pod.phase,
                pod.ready,
                cluster.classes[pod.cls].template.deletion_cost,
                -crowd[pod.node],
                _age(now_us - pod.ready_us) if pod.ready else 0,
                -pod.restarts,
                _age(now_us - pod.created_us),
                pod.uid,
            )

        return sorted(pods, key=rank)[:count]


def _age(microseconds: int) -> int:
    """Return the bucket of an age: ages of the same power of two count as equal (LogarithmicScaleDown)."""
    return int(math.log2(microseconds)) if microseconds > 0 else -1
