"""Deployment: rolls replica sets from revision to revision within `maxSurge` and `maxUnavailable`.

The arithmetic is that of kube-controller-manager's deployment controller (`rolling.go`, `sync.go`).
"""

import msgspec

from skep.arena.cluster import Cluster
from skep.arena.objects import Deployment, ReplicaSet, Requirement, Selector
from skep.arena.scheduler.loop import scaled
from skep.arena.state import WorkloadState

HASH_LABEL = "pod-template-hash"


class DeploymentController:
    """Scales a deployment's replica sets."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def reconcile(self, workload: WorkloadState) -> None:
        """Take the next step of a rollout or a scaling, if one can be taken now."""
        spec = workload.spec
        assert isinstance(spec, Deployment)
        sets = [self._cluster.workloads[uid] for uid in workload.children]
        old = [item for item in sets if item.revision != workload.revision]
        new = next((item for item in sets if item.revision == workload.revision), None)
        if workload.scaled_for != spec.replicas and workload.scaled_for >= 0:
            self._scale(workload, spec, new, old)
        workload.scaled_for = spec.replicas
        if not spec.paused:
            if spec.recreate:
                new = self._recreate(workload, spec, new, old)
            else:
                new = self._roll(workload, spec, new, old)
        self._settle(workload, spec, new, old)

    def _settle(
        self, workload: WorkloadState, spec: Deployment, new: WorkloadState | None, old: list[WorkloadState]
    ) -> None:
        done = new is not None and _replicas(new) == spec.replicas and not any(map(_replicas, old))
        if done and not workload.rolled and old:
            self._cluster.log("RolledOut", workload.key, workload.revision)
        workload.rolled = done or spec.paused
        for item in (*old, *([new] if new is not None else [])):
            item.rolled = workload.rolled
        if done and len(old) > spec.revisions_kept:
            idle = sorted((item for item in old if not item.pods), key=lambda item: item.revision_number)
            for item in idle[: len(old) - spec.revisions_kept]:
                del workload.children[item.uid]
                del self._cluster.workloads[item.uid]
                del self._cluster.workload_uids["ReplicaSet", item.spec.namespace, item.spec.name]

    def _roll(
        self, workload: WorkloadState, spec: Deployment, new: WorkloadState | None, old: list[WorkloadState]
    ) -> WorkloadState:
        if new is None:
            new = self._create(workload, spec)
        surge, unavailable = _fenceposts(spec)
        if _replicas(new) > spec.replicas:
            self._set_replicas(new, spec.replicas)
        else:
            total = _replicas(new) + sum(map(_replicas, old))
            room = spec.replicas + surge - total
            if room > 0:
                self._set_replicas(new, _replicas(new) + min(room, spec.replicas - _replicas(new)))
        if any(map(_replicas, old)):
            self._shrink_old(spec, new, old, unavailable)
        return new

    def _shrink_old(
        self, spec: Deployment, new: WorkloadState, old: list[WorkloadState], unavailable: int
    ) -> None:
        """Scale old replica sets down: first what is not available anyway, then as availability allows."""
        total = _replicas(new) + sum(map(_replicas, old))
        available_min = spec.replicas - unavailable
        room = total - available_min - max(0, _replicas(new) - new.available)
        if room <= 0:
            return
        old = sorted(old, key=lambda item: item.revision_number)
        for item in old:
            cut = min(room, max(0, _replicas(item) - item.available))
            if cut > 0:
                self._set_replicas(item, _replicas(item) - cut)
                room -= cut
        spare = new.available + sum(item.available for item in old) - available_min
        for item in old:
            cut = min(spare, _replicas(item))
            if cut > 0:
                self._set_replicas(item, _replicas(item) - cut)
                spare -= cut

    def _recreate(
        self, workload: WorkloadState, spec: Deployment, new: WorkloadState | None, old: list[WorkloadState]
    ) -> WorkloadState | None:
        for item in old:
            if _replicas(item):
                self._set_replicas(item, 0)
        if any(item.pods for item in old):
            return new
        if new is None:
            new = self._create(workload, spec)
        self._set_replicas(new, spec.replicas)
        return new

    def _scale(
        self, workload: WorkloadState, spec: Deployment, new: WorkloadState | None, old: list[WorkloadState]
    ) -> None:
        """Spread a change of `replicas` over the replica sets in proportion to their size."""
        sets = [item for item in (*old, *([new] if new is not None else [])) if _replicas(item)]
        if len(sets) <= 1 or spec.recreate:
            target = sets[0] if sets else new
            if target is not None and (target is new or spec.paused):
                self._set_replicas(target, spec.replicas)
            return
        surge, _ = _fenceposts(spec)
        allowed = spec.replicas + surge if spec.replicas else 0
        total = sum(map(_replicas, sets))
        left = allowed - total
        sets.sort(
            key=lambda item: (-_replicas(item), -item.revision_number if left > 0 else item.revision_number)
        )
        before = max(total, 1)
        sizes = {}
        for item in sets:
            share = round(_replicas(item) * allowed / before) - _replicas(item)
            share = max(min(share, left), 0) if left > 0 else min(max(share, left), 0)
            sizes[item.uid] = _replicas(item) + share
            left -= share
        sizes[sets[0].uid] = max(0, sizes[sets[0].uid] + left)
        for item in sets:
            self._set_replicas(item, sizes[item.uid])
        self._cluster.log("Scaled", workload.key, str(spec.replicas))

    def _create(self, workload: WorkloadState, spec: Deployment) -> WorkloadState:
        cluster, revision = self._cluster, workload.revision
        labels = {**spec.template.labels, HASH_LABEL: revision}
        made = ReplicaSet(
            spec.namespace,
            f"{spec.name}-{revision}",
            0,
            Selector((*spec.selector.requirements, Requirement(HASH_LABEL, "In", (revision,)))),
            msgspec.structs.replace(spec.template, labels=labels),
            spec.min_ready_s,
        )
        item = WorkloadState(
            cluster.uid(), made, workload.uid, revision=revision, lifetimes_us=workload.lifetimes_us
        )
        workload.revision_number += 1
        item.revision_number = workload.revision_number
        cluster.workloads[item.uid] = item
        cluster.workload_uids["ReplicaSet", spec.namespace, made.name] = item.uid
        workload.children[item.uid] = None
        return item

    def _set_replicas(self, item: WorkloadState, replicas: int) -> None:
        assert isinstance(item.spec, ReplicaSet)
        if item.spec.replicas != replicas:
            self._cluster.log("ScalingReplicaSet", item.key, f"{item.spec.replicas} to {replicas}")
            item.spec = msgspec.structs.replace(item.spec, replicas=replicas)
            item.rolled = False
            self._cluster.dirty[item.uid] = None


def _replicas(workload: WorkloadState) -> int:
    assert isinstance(workload.spec, ReplicaSet)
    return workload.spec.replicas


def _fenceposts(spec: Deployment) -> tuple[int, int]:
    """Return surge and unavailable as counts; both at 0 would never move, so one may be unavailable."""
    surge = scaled(spec.max_surge, spec.replicas, round_up=True)
    unavailable = min(scaled(spec.max_unavailable, spec.replicas, round_up=False), spec.replicas)
    return (surge, unavailable) if surge or unavailable else (0, 1)
