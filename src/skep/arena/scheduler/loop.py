"""The scheduler at work: pods in, bindings, nominations and waiting out."""

from typing import Final

from skep.arena.cluster import Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.objects import DisruptionBudget
from skep.arena.scheduler.classes import PodClass
from skep.arena.scheduler.explain import NO_NODES, Capture, Captures, reasons_of
from skep.arena.scheduler.filters import plugins_of
from skep.arena.scheduler.matching import selects
from skep.arena.scheduler.placing import Nominated, Placement, Placer
from skep.arena.scheduler.plugins import Filter
from skep.arena.scheduler.preempt import Budget, Candidate, Preemptor
from skep.arena.scheduler.queue import FLUSH_EVERY_US, Hint, SchedulingQueue
from skep.arena.state import NOWHERE, US, PodState
from skep.arena.timeline import Due

ALL_FILTERS: Final = sum(1 << item for item in Filter)


class SchedulerLoop:
    """Takes pods from the queue one after the other, as kube-scheduler does."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster, self._kubelet = cluster, kubelet
        self.queue = SchedulingQueue()
        self.placer = Placer(cluster.table, cluster.rng, cluster.classes)
        self.placer.namespaces = cluster.namespaces
        self._preemptor = Preemptor(self.placer, cluster.pods, cluster.classes, cluster.rng)
        self.captures = Captures(cluster.profile.explained_cells_max)
        self._cycle_us = int(cluster.profile.cycle_s * US)
        self._explains = cluster.profile.explains
        self.planned = False
        self.flush_planned = False
        self.free_us = 0
        cluster.on_pending = self.on_pending
        cluster.on_forgotten = self.on_forgotten
        cluster.on_hint = self.on_hint
        cluster.pod_classes.on_dropped = self.placer.forget

    def on_pending(self, pod: PodState) -> None:
        """A pod wants a node."""
        pod.queued_us = self._cluster.timeline.now_us
        self.queue.activate(pod.uid, pod.priority, pod.queued_us)
        if not self.planned:
            self._plan()

    def on_forgotten(self, pod: PodState) -> None:
        """A pod is no more."""
        self.queue.remove(pod.uid)
        self.captures.forget(pod.uid)

    def _plan(self) -> None:
        if not self.planned:
            self.planned = True
            self._cluster.timeline.plan(max(self._cluster.timeline.now_us, self.free_us), Due.SCHEDULE)

    def on_hint(self, hint: str) -> None:
        """Something happened that may let waiting pods fit."""
        if self.queue.waiting:
            self._requeue(self.queue.helped(hint))

    def _requeue(self, uids: list[int]) -> None:
        now_us = self._cluster.timeline.now_us
        for uid in uids:
            ready_us = self.queue.waiting[uid].ready_us
            if ready_us > now_us:
                self.queue.back_off(uid, ready_us)
                self._cluster.timeline.plan(ready_us, Due.RETRY)
            else:
                self._activate(uid)

    def _activate(self, uid: int) -> None:
        pod = self._cluster.pods[uid]
        pod.queued_us = self._cluster.timeline.now_us
        self.queue.activate(uid, pod.priority, pod.queued_us)
        self._plan()

    def retry(self) -> None:
        """Backoffs may be over."""
        for uid in self.queue.backed_off(self._cluster.timeline.now_us):
            self._activate(uid)

    def flush(self) -> None:
        """Try again what has waited for five minutes."""
        self.flush_planned = False
        self._requeue(self.queue.overdue(self._cluster.timeline.now_us))
        self._plan_flush()

    def _plan_flush(self) -> None:
        if self.queue.waiting and not self.flush_planned:
            self.flush_planned = True
            now_us = self._cluster.timeline.now_us
            self._cluster.timeline.plan(now_us - now_us % FLUSH_EVERY_US + FLUSH_EVERY_US, Due.FLUSH)

    def run(self) -> None:
        """Schedule: one pod when cycles take time, else all that are there."""
        self.planned = False
        cluster = self._cluster
        if cluster.table.stale:
            cluster.table.rebuild(cluster.nodes.values(), cluster.classes.values())
        pop, pods = self.queue.pop, cluster.pods
        while (uid := pop()) is not None:
            self._schedule(pods[uid])
            if self._cycle_us:
                self.free_us = cluster.timeline.now_us + self._cycle_us
                if self.queue.has_active():
                    self._plan()
                return
            if cluster.table.stale:
                cluster.table.rebuild(cluster.nodes.values(), cluster.classes.values())

    def _nominations(self) -> Nominated:
        cluster = self._cluster
        return {
            node: [(uid, cluster.classes[cluster.pods[uid].cls]) for uid in uids]
            for node, uids in cluster.nominated.items()
        }

    def _schedule(self, pod: PodState) -> None:
        cluster = self._cluster
        pod.attempts += 1
        cls = cluster.classes[pod.cls]
        nominated = self._nominations() if cluster.nominated else {}
        own = cluster.nodes[pod.nominated] if pod.nominated != NOWHERE else None
        placement = self.placer.place(pod.uid, cls, own, nominated)
        capture = None
        if self._explains:
            table = cluster.table
            capture = Capture(
                pod, placement, table.names, self._cluster.columns.names, cluster.timeline.now_us
            )
            self.captures.keep(pod.uid, capture)
        if placement.slot >= 0:
            if capture is not None:
                capture.outcome = "scheduled"
            cluster.bind(pod, cluster.table.nodes[placement.slot])
            if self.queue.waiting:
                self.on_hint(Hint.POD_ADDED)
            return
        self._wait(pod, placement)
        victims = self._preempt(pod, cls, placement, nominated)
        if victims is not None and capture is not None:
            capture.outcome, capture.node = "nominated", victims.node.spec.name
            capture.victims = tuple(f"{victim.namespace}/{victim.name}" for victim in victims.victims)

    def reasons(self, cls: PodClass) -> list[str]:
        """Return, in the scheduler's words, why such a pod fits nowhere as the cluster stands now."""
        cluster = self._cluster
        if cluster.table.stale:
            cluster.table.rebuild(cluster.nodes.values(), cluster.classes.values())
        if not len(cluster.table):
            return [NO_NODES]
        verdicts, codes = self.placer.codes(cls)
        kinds = set(codes) if isinstance(codes, list) else set(codes.tolist())
        found = {
            reason
            for code in kinds
            if code
            for reason in reasons_of(int(code), verdicts.statics.reasons, cluster.columns.names)
        }
        return sorted(found)

    def _wait(self, pod: PodState, placement: Placement) -> None:
        verdicts, codes = placement.verdicts, placement.codes
        rejected_by = verdicts.rejected_by() if codes is verdicts.codes else plugins_of(codes)
        now_us = self._cluster.timeline.now_us
        pod.reason = "Unschedulable"
        self.queue.wait(pod.uid, rejected_by or ALL_FILTERS, now_us, pod.attempts)
        self._plan_flush()
        self._cluster.log("FailedScheduling", f"{pod.namespace}/{pod.name}")

    def _preempt(
        self, pod: PodState, cls: PodClass, placement: Placement, nominated: Nominated
    ) -> Candidate | None:
        """Make room by asking less important pods to go."""
        cluster = self._cluster
        own = cluster.nodes[pod.nominated] if pod.nominated != NOWHERE else None
        if not cluster.pod_classes.any_below(pod.priority) or not self._preemptor.is_eligible(pod, cls, own):
            return None
        budgets = [self._budget(budget) for budget in cluster.budgets.values()]
        found = self._preemptor.find(pod, cls, placement, nominated, budgets)
        if found is None:
            cluster.denominate(pod)
            return None
        cluster.nominate(pod, found.node)
        cluster.log("Nominated", f"{pod.namespace}/{pod.name}", found.node.spec.name)
        for victim in found.victims:
            cluster.log("Preempted", f"{victim.namespace}/{victim.name}", f"by {pod.namespace}/{pod.name}")
            self._kubelet.delete(victim, "preempted")
        for uid in list(cluster.nominated.get(found.node.id, ())):
            other = cluster.pods[uid]
            if other.priority < pod.priority:
                cluster.denominate(other)
        return found

    def _budget(self, budget: DisruptionBudget) -> Budget:
        def covers(cls: PodClass) -> bool:
            return cls.namespace == budget.namespace and selects(budget.selector, cls.template.labels)

        covered = [
            pod
            for pod in self._cluster.pods.values()
            if pod.is_active and covers(self._cluster.classes[pod.cls])
        ]
        healthy, expected = sum(pod.ready for pod in covered), len(covered)
        if budget.max_unavailable is not None:
            wanted = expected - scaled(budget.max_unavailable, expected, round_up=True)
        else:
            wanted = scaled(budget.min_available or 0, expected, round_up=True)
        return Budget(covers, max(0, healthy - wanted))


def scaled(value: int | str, whole: int, *, round_up: bool) -> int:
    """Return a count, or a percentage of `whole`."""
    if isinstance(value, int):
        return value
    hundredths = int(value[:-1]) * whole
    return -(-hundredths // 100) if round_up else hundredths // 100
