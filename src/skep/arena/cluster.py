"""The simulated cluster's objects and the ways in which they change: what an API server and its watchers hold.

Everything that depends on them (scheduler, kubelets, controllers) is told through the few methods here, so that
counts are never computed twice.
"""

from collections.abc import Callable
from typing import Final

from skep.arena.history import History
from skep.arena.objects import (
    DisruptionBudget,
    Inert,
    Job,
    PriorityClass,
    Service,
)
from skep.arena.pod_classes import PodClasses
from skep.arena.profile import Profile
from skep.arena.rng import Rng
from skep.arena.scheduler.classes import Columns, PodClass
from skep.arena.scheduler.queue import Hint
from skep.arena.scheduler.table import NodeTable
from skep.arena.state import NOWHERE, NodeState, Phase, PodState, WorkloadState
from skep.arena.timeline import Due, Timeline

TERMINATED_PODS_MAX: Final = 12_500
"""Finished pods that are kept (kube-controller-manager's `--terminated-pod-gc-threshold`)."""
STOPPED: Final = "Stopped"
"""The reason of a job's pod that its own controller asked to go: no failure."""

WorkloadKey = tuple[str, str, str]
"""Kind, namespace, name."""


class Cluster:
    """All objects. Subscribers are set by the parts that need to know."""

    def __init__(self, profile: Profile, seed: int, history: History) -> None:
        self.profile, self.history = profile, history
        self.rng = Rng(seed * 0x9E3779B97F4A7C15 + 1)
        self.timeline = Timeline()
        self.columns = Columns()
        self.table = NodeTable(self.columns, vector_from=profile.vector_from)
        self.pods: dict[int, PodState] = {}
        self.pod_uids: dict[str, int] = {}
        self.nodes: dict[int, NodeState] = {}
        self.node_ids: dict[str, int] = {}
        self.workloads: dict[int, WorkloadState] = {}
        self.workload_uids: dict[WorkloadKey, int] = {}
        self.priorities: dict[str, PriorityClass] = {}
        self.budgets: dict[str, DisruptionBudget] = {}
        self.services: dict[str, Service] = {}
        self.pod_classes = PodClasses(self.table, self.priorities, self.services)
        self.classes = self.pod_classes.by_id
        self.namespaces: dict[str, dict[str, str]] = {}
        self.inert: dict[str, Inert] = {}
        self.terminated: dict[int, None] = {}
        self.nominated: dict[int, dict[int, None]] = {}
        self.dirty: dict[int, None] = {}
        self.next_uid = 1
        self.next_node_id = 1
        self.pods_created = 0
        self.on_pending: Callable[[PodState], None] = _nobody
        self.on_forgotten: Callable[[PodState], None] = _nobody
        self.on_bound: Callable[[PodState], None] = _nobody
        self.on_hint: Callable[[str], None] = _nobody

    def log(self, kind: str, subject: str, detail: str = "") -> None:
        """Record that something happened now."""
        self.history.append((self.timeline.now_us, kind, subject, detail))

    def uid(self) -> int:
        """Return a fresh uid."""
        self.next_uid += 1
        return self.next_uid - 1

    # Pods.

    def create_pod(
        self, name: str, cls: PodClass, owner: WorkloadState | None, *, ordinal: int = -1, revision: str = ""
    ) -> PodState:
        """Create a pod and, unless it is gated or bound by name, hand it to the scheduler."""
        now_us = self.timeline.now_us
        uid = self.uid()
        pod = PodState(
            uid,
            cls.namespace,
            name,
            cls.id,
            cls.priority,
            owner.uid if owner is not None else 0,
            now_us,
            ordinal=ordinal,
            revision=revision,
        )
        self.pods[uid] = pod
        self.pod_uids[f"{cls.namespace}/{name}"] = uid
        self.pods_created += 1
        self.pod_classes.joined(cls)
        if owner is not None:
            owner.pods[uid] = None
            owner.active += 1
            if owner.lifetimes_us:
                pod.runs_us = owner.lifetimes_us[owner.created % len(owner.lifetimes_us)]
            owner.created += 1
        self.history.append((now_us, "Created", f"{cls.namespace}/{name}", ""))
        template = cls.template
        if template.node_name:
            self._bind_by_name(pod, template.node_name)
        elif template.gates:
            pod.reason = "SchedulingGated"
        else:
            self.on_pending(pod)
        return pod

    def _bind_by_name(self, pod: PodState, name: str) -> None:
        node_id = self.node_ids.get(name)
        if node_id is not None:
            self.bind(pod, self.nodes[node_id])

    def reclass(self, pod: PodState, cls: PodClass) -> None:
        """Give a pod that runs nowhere another template."""
        self.pod_classes.left(self.classes[pod.cls])
        self.pod_classes.joined(cls)
        pod.cls, pod.priority = cls.id, cls.priority

    def bind(self, pod: PodState, node: NodeState) -> None:
        """Put a pod onto a node."""
        cls = self.classes[pod.cls]
        self.denominate(pod)
        pod.node, pod.bound_us, pod.reason = node.id, self.timeline.now_us, "ContainerCreating"
        node.pods[pod.uid] = None
        self.table.add(node, cls)
        self.history.append((pod.bound_us, "Scheduled", f"{pod.namespace}/{pod.name}", node.spec.name))
        self.on_bound(pod)

    def nominate(self, pod: PodState, node: NodeState) -> None:
        """Keep a place for a pod on a node."""
        self.denominate(pod)
        pod.nominated = node.id
        self.nominated.setdefault(node.id, {})[pod.uid] = None

    def denominate(self, pod: PodState) -> None:
        """Give a pod's kept place up."""
        if pod.nominated == NOWHERE:
            return
        held = self.nominated[pod.nominated]
        del held[pod.uid]
        if not held:
            del self.nominated[pod.nominated]
        pod.nominated = NOWHERE

    def set_ready(self, pod: PodState, *, ready: bool) -> None:
        """Change a pod's readiness and its owner's count; availability follows."""
        if pod.ready == ready:
            return
        pod.ready = ready
        owner = self.workloads.get(pod.owner)
        pod.ready_us = self.timeline.now_us if ready else -1
        if owner is None:
            return
        owner.ready += 1 if ready else -1
        min_ready_s = getattr(owner.spec, "min_ready_s", 0.0)
        if ready and min_ready_s:
            self.timeline.plan(
                self.timeline.now_us + int(min_ready_s * 1_000_000), Due.AVAILABLE, pod.uid, pod.life
            )
        else:
            self.set_available(pod, owner, available=ready)

    def set_available(self, pod: PodState, owner: WorkloadState, *, available: bool) -> None:
        """Change a pod's availability and let its controller look."""
        if pod.available != available:
            pod.available = available
            owner.available += 1 if available else -1
            if not owner.rolled:
                self.dirty[owner.uid] = None

    def finish(self, pod: PodState, phase: Phase) -> None:
        """End a pod for good: it keeps its name, and no longer its node's resources."""
        self.set_ready(pod, ready=False)
        was_active = pod.is_active
        pod.phase, pod.ended_us = phase, self.timeline.now_us
        pod.life += 1
        self._leave_node(pod)
        self._count_out(pod, was_active=was_active)
        self.log(
            "Succeeded" if phase == Phase.SUCCEEDED else "Failed", f"{pod.namespace}/{pod.name}", pod.reason
        )
        self._tell_job(pod)
        self.terminated[pod.uid] = None
        if len(self.terminated) > TERMINATED_PODS_MAX:
            self.forget(self.pods[next(iter(self.terminated))])

    def _tell_job(self, pod: PodState) -> None:
        owner = self.workloads.get(pod.owner)
        if owner is not None and isinstance(owner.spec, Job) and pod.reason != STOPPED:
            owner.ended.append((pod.uid, int(pod.phase == Phase.SUCCEEDED), pod.ordinal))

    def mark_deleting(self, pod: PodState) -> None:
        """Ask a pod to go; its controller counts it out at once."""
        self.set_ready(pod, ready=False)
        was_active = pod.is_active
        if pod.node != NOWHERE and not pod.is_terminal:
            self.table.retire(self.nodes[pod.node], self.classes[pod.cls])
        pod.deleting = True
        pod.life += 1
        self._count_out(pod, was_active=was_active)

    def _count_out(self, pod: PodState, *, was_active: bool) -> None:
        owner = self.workloads.get(pod.owner)
        if owner is not None and was_active:
            owner.active -= 1
            self.dirty[owner.uid] = None

    def _leave_node(self, pod: PodState) -> None:
        node = self.nodes.get(pod.node)
        if node is None:
            return
        del node.pods[pod.uid]
        self.table.remove(node, self.classes[pod.cls], retired=pod.deleting)
        self.on_hint(Hint.POD_DELETED)

    def forget(self, pod: PodState) -> None:
        """Remove a pod's object."""
        self.set_ready(pod, ready=False)
        was_active = pod.is_active
        if not pod.is_terminal:
            self._leave_node(pod)
        self.denominate(pod)
        self.terminated.pop(pod.uid, None)
        del self.pods[pod.uid]
        key = f"{pod.namespace}/{pod.name}"
        if self.pod_uids.get(key) == pod.uid:
            del self.pod_uids[key]
        self._count_out(pod, was_active=was_active)
        owner = self.workloads.get(pod.owner)
        if owner is not None:
            owner.pods.pop(pod.uid, None)
            if not pod.is_terminal:
                self._tell_job(pod)
            self.dirty[owner.uid] = None
        self.pod_classes.left(self.classes[pod.cls])
        self.on_forgotten(pod)
        self.history.append((self.timeline.now_us, "Deleted", key, ""))


def _nobody(_: object) -> None:
    """Tell nobody."""
