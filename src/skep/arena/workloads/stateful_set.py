"""StatefulSet: pods with ordinals, in order, one at a time unless declared parallel."""

from typing import Final

from skep.arena.cluster import Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.objects import StatefulSet
from skep.arena.state import US, PodState, WorkloadState
from skep.arena.timeline import Due

RETRY_US: Final = 1 * US
"""How long the controller waits after the API has refused a name that is taken."""


class StatefulSetController:
    """Creates, deletes and updates pods by ordinal."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster, self._kubelet = cluster, kubelet

    def reconcile(self, workload: WorkloadState) -> None:
        """Take the next steps that the order allows."""
        spec = workload.spec
        assert isinstance(spec, StatefulSet)
        if workload.revision not in workload.templates:
            workload.templates[workload.revision] = spec.template
        workload.stable_revision = workload.stable_revision or workload.revision
        by_ordinal = {self._cluster.pods[uid].ordinal: self._cluster.pods[uid] for uid in workload.pods}
        wanted = range(spec.start_ordinal, spec.start_ordinal + spec.replicas)
        workload.rolled = (
            self._fill(workload, spec, by_ordinal, wanted)
            and self._condemn(spec, by_ordinal, wanted)
            and self._update(workload, spec, by_ordinal, wanted)
        )
        if workload.rolled and not spec.partition and not spec.on_delete:
            workload.stable_revision = workload.revision
            workload.templates = {workload.revision: spec.template}

    def _fill(
        self, workload: WorkloadState, spec: StatefulSet, by_ordinal: dict[int, PodState], wanted: range
    ) -> bool:
        """Create what is missing from the lowest ordinal on; False while something is waited for."""
        whole = True
        for ordinal in wanted:
            pod = by_ordinal.get(ordinal)
            if pod is not None and pod.is_terminal:
                self._cluster.forget(pod)
                pod = by_ordinal.pop(ordinal, None) and None
            if pod is None:
                created = self._create(workload, spec, ordinal)
                if created is not None:
                    by_ordinal[ordinal] = created
                whole = False
            elif pod.deleting or not pod.available:
                whole = False
            if not whole and not spec.parallel:
                return False
        return whole

    def _create(self, workload: WorkloadState, spec: StatefulSet, ordinal: int) -> PodState | None:
        """Create a pod, or try again later while another set's pod of this name is still leaving."""
        timeline = self._cluster.timeline
        if f"{spec.namespace}/{spec.name}-{ordinal}" in self._cluster.pod_uids:
            timeline.plan(timeline.now_us + RETRY_US, Due.WAKE, workload.uid)
            return None
        old = ordinal < spec.start_ordinal + spec.partition
        revision = workload.stable_revision if old else workload.revision
        template = workload.templates.get(revision, spec.template)
        cls = self._cluster.pod_classes.of(spec.namespace, template, workload)
        return self._cluster.create_pod(
            f"{spec.name}-{ordinal}", cls, workload, ordinal=ordinal, revision=revision
        )

    def _condemn(self, spec: StatefulSet, by_ordinal: dict[int, PodState], wanted: range) -> bool:
        """Delete what is beyond the declared ordinals, highest first; False while one is leaving."""
        condemned = sorted((ordinal for ordinal in by_ordinal if ordinal not in wanted), reverse=True)
        for ordinal in condemned:
            pod = by_ordinal[ordinal]
            if not pod.deleting:
                self._kubelet.delete(pod, "scaled down")
            if not spec.parallel:
                return False
        return not condemned

    def _update(
        self, workload: WorkloadState, spec: StatefulSet, by_ordinal: dict[int, PodState], wanted: range
    ) -> bool:
        """Delete pods of an older revision, highest ordinal first, one at a time."""
        if spec.on_delete:
            return True
        for ordinal in reversed(wanted[min(spec.partition, len(wanted)) :]):
            pod = by_ordinal.get(ordinal)
            if pod is None or pod.deleting or not pod.available:
                return False
            if pod.revision != workload.revision:
                self._kubelet.delete(pod, "rolling update")
                return False
        return True
