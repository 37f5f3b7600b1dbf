"""Job: pods that run to completion, so many at a time, with a bounded number of failures.

Failures back off 10 s doubling to 6 minutes, as kube-controller-manager's job controller does.
"""

from typing import Final

from skep.arena.cluster import STOPPED, Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.objects import Job
from skep.arena.state import US, WorkloadState
from skep.arena.timeline import Due
from skep.arena.workloads.names import pod_suffix

BACKOFF_US: Final = 10 * US
BACKOFF_US_MAX: Final = 360 * US


class JobController:
    """Creates pods until enough have succeeded or too many have failed."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster, self._kubelet = cluster, kubelet

    def reconcile(self, workload: WorkloadState) -> None:
        """Count what ended, then start or stop pods."""
        spec = workload.spec
        assert isinstance(spec, Job)
        self._count(workload, spec)
        if workload.finished:
            return
        if spec.suspended:
            self._stop(workload, "suspended")
            workload.started_us = -1
            return
        now_us = self._cluster.timeline.now_us
        if workload.started_us < 0:
            workload.started_us = now_us
            if spec.active_deadline_s is not None:
                self._wake(workload, now_us + int(spec.active_deadline_s * US))
        if spec.active_deadline_s is not None and now_us >= workload.started_us + int(
            spec.active_deadline_s * US
        ):
            self._finish(workload, spec, "Failed", "DeadlineExceeded")
        elif workload.failed + self._restarts(workload, spec) > spec.backoff_limit:
            self._finish(workload, spec, "Failed", "BackoffLimitExceeded")
        elif self._is_complete(workload, spec):
            self._finish(workload, spec, "Complete", "")
        else:
            self._fill(workload, spec, now_us)

    def _count(self, workload: WorkloadState, spec: Job) -> None:
        now_us = self._cluster.timeline.now_us
        for _, success, index in workload.ended:
            if success:
                workload.succeeded += not spec.indexed or index not in workload.completed
                if spec.indexed:
                    workload.completed[index] = None
                workload.retry_us = 0
            else:
                workload.failed += 1
                delay_us = min(BACKOFF_US << min(workload.failed - 1, 10), BACKOFF_US_MAX)
                workload.retry_us = now_us + delay_us
                self._wake(workload, workload.retry_us)
        workload.ended.clear()

    def _restarts(self, workload: WorkloadState, spec: Job) -> int:
        if spec.template.restart_policy != "OnFailure":
            return 0
        return sum(
            self._cluster.pods[uid].restarts for uid in workload.pods if self._cluster.pods[uid].exit_code
        )

    def _is_complete(self, workload: WorkloadState, spec: Job) -> bool:
        if spec.completions is None:
            return bool(workload.succeeded) and not workload.active
        return workload.succeeded >= spec.completions

    def _fill(self, workload: WorkloadState, spec: Job, now_us: int) -> None:
        if spec.completions is None:
            wanted = workload.active if workload.succeeded else spec.parallelism
        else:
            wanted = min(spec.parallelism, spec.completions - workload.succeeded)
        missing = wanted - workload.active
        if missing < 0:
            self._stop(workload, "parallelism", -missing)
        elif missing and now_us >= workload.retry_us:
            cls = self._cluster.pod_classes.of(spec.namespace, spec.template, workload)
            for index in self._indexes(workload, spec, missing):
                suffix = pod_suffix(self._cluster.next_uid)
                name = f"{spec.name}-{index}-{suffix}" if spec.indexed else f"{spec.name}-{suffix}"
                self._cluster.create_pod(name, cls, workload, ordinal=index)

    def _indexes(self, workload: WorkloadState, spec: Job, count: int) -> list[int]:
        if not spec.indexed:
            return [-1] * count
        busy = {pod.ordinal for uid in workload.pods if (pod := self._cluster.pods[uid]).is_active}
        free = (
            index
            for index in range(spec.completions or 0)
            if index not in busy and index not in workload.completed
        )
        return [index for _, index in zip(range(count), free, strict=False)]

    def _stop(self, workload: WorkloadState, why: str, count: int | None = None) -> None:
        active = [pod for uid in workload.pods if (pod := self._cluster.pods[uid]).is_active]
        active.sort(key=lambda pod: (pod.ready, -pod.created_us, -pod.uid))
        for pod in active[:count]:
            pod.reason = STOPPED
            self._kubelet.delete(pod, why)

    def _finish(self, workload: WorkloadState, spec: Job, how: str, why: str) -> None:
        workload.finished = how
        self._cluster.log(f"Job{how}", workload.key, why)
        self._stop(workload, "job finished")
        if spec.ttl_s is not None:
            workload.retry_us = self._cluster.timeline.now_us + int(spec.ttl_s * US)
            self._wake(workload, workload.retry_us)

    def _wake(self, workload: WorkloadState, at_us: int) -> None:
        self._cluster.timeline.plan(at_us, Due.WAKE, workload.uid)

    def is_expired(self, workload: WorkloadState) -> bool:
        """True when a finished job's time to live is over."""
        spec = workload.spec
        return (
            isinstance(spec, Job)
            and bool(workload.finished)
            and spec.ttl_s is not None
            and self._cluster.timeline.now_us >= workload.retry_us
        )
