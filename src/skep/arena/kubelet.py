"""The life of a pod on its node: image, start, readiness, out-of-memory kills, crash loops, completion, deletion.

Restart delays are the kubelet's: none, then 10 s doubling to 300 s, forgotten after ten good minutes.
"""

from typing import Final

from skep.arena.cluster import Cluster
from skep.arena.objects import Usage
from skep.arena.scheduler.classes import PodClass
from skep.arena.state import NOWHERE, US, NodeState, Phase, PodState
from skep.arena.timeline import Due

RESTART_DELAY_US: Final = 10 * US
RESTART_DELAY_US_MAX: Final = 300 * US
GOOD_RUN_US: Final = 600 * US
OOM_EXIT_CODE: Final = 137


class Kubelet:
    """Every node's kubelet."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        profile = cluster.profile
        self._pull_us, self._pull_jitter_us = (
            int(profile.image_pull_delay_s * US),
            int(profile.image_pull_jitter_s * US),
        )
        self._start_us = int(profile.pod_startup_delay_s * US)
        self._start_jitter_us = int(profile.pod_startup_jitter_s * US)
        self._stop_us = int(profile.termination_s * US)

    def on_bound(self, pod: PodState) -> None:
        """Begin a pod: pull what is missing, then start."""
        cluster = self._cluster
        node, cls = cluster.nodes[pod.node], cluster.classes[pod.cls]
        delay_us = self._start_us + cluster.rng.jitter(self._start_jitter_us)
        delay_us += sum(
            self._pull_us + cluster.rng.jitter(self._pull_jitter_us)
            for image in cls.template.images
            if image not in node.pulled and image not in node.images
        )
        pod.life += 1
        cluster.timeline.plan(cluster.timeline.now_us + delay_us, Due.STARTED, pod.uid, pod.life)

    def _alive(self, uid: int, life: int) -> PodState | None:
        pod = self._cluster.pods.get(uid)
        return pod if pod is not None and pod.life == life else None

    def started(self, uid: int, life: int) -> None:
        """The containers run."""
        pod = self._alive(uid, life)
        if pod is None:
            return
        cluster = self._cluster
        node, cls = cluster.nodes[pod.node], cluster.classes[pod.cls]
        for image in cls.template.images:
            node.pulled[image] = None
        pod.phase, pod.reason = Phase.RUNNING, ""
        cluster.history.append((cluster.timeline.now_us, "Started", f"{pod.namespace}/{pod.name}", ""))
        self._run(pod, cls, node)

    def _run(self, pod: PodState, cls: PodClass, node: NodeState) -> None:
        """Plan what becomes of containers that have just started."""
        timeline, template = self._cluster.timeline, cls.template
        now_us = timeline.now_us
        usage = template.usage
        if usage is not None:
            self._plan_end(pod, cls, usage)
        if pod.runs_us >= 0 and pod.restarts == 0:
            timeline.plan(now_us + pod.runs_us, Due.EXIT, pod.uid, pod.life)
        if template.ready_after_s:
            timeline.plan(now_us + int(template.ready_after_s * US), Due.READY, pod.uid, pod.life)
        elif node.ready:
            self._cluster.set_ready(pod, ready=True)

    def _plan_end(self, pod: PodState, cls: PodClass, usage: Usage) -> None:
        timeline = self._cluster.timeline
        limit = cls.template.limits.get("memory")
        if limit is not None and usage.memory_bytes is not None and usage.memory_bytes > limit:
            timeline.plan(timeline.now_us + int(usage.memory_after_s * US), Due.OOM, pod.uid, pod.life)
        if usage.runs_s is not None:
            timeline.plan(timeline.now_us + int(usage.runs_s * US), Due.EXIT, pod.uid, pod.life)

    def ready(self, uid: int, life: int) -> None:
        """The readiness probe says yes."""
        pod = self._alive(uid, life)
        if pod is not None and pod.phase == Phase.RUNNING and self._cluster.nodes[pod.node].ready:
            self._cluster.set_ready(pod, ready=True)

    def available(self, uid: int, life: int) -> None:
        """The pod has been ready for its workload's `minReadySeconds`."""
        pod = self._alive(uid, life)
        if pod is None or not pod.ready:
            return
        owner = self._cluster.workloads.get(pod.owner)
        if owner is not None:
            self._cluster.set_available(pod, owner, available=True)

    def out_of_memory(self, uid: int, life: int) -> None:
        """The kernel kills a container that uses more than its limit."""
        pod = self._alive(uid, life)
        if pod is not None:
            pod.reason = "OOMKilled"
            pod.oom_kills += 1
            self._cluster.log("OOMKilled", f"{pod.namespace}/{pod.name}")
            self._ended(pod, OOM_EXIT_CODE)

    def exited(self, uid: int, life: int) -> None:
        """A container ends by itself."""
        pod = self._alive(uid, life)
        if pod is None:
            return
        usage = self._cluster.classes[pod.cls].template.usage
        code = usage.exit_code if usage is not None else 0
        if pod.runs_us >= 0 or (usage is not None and usage.ends):
            pod.reason = "Completed" if not code else "Error"
            pod.exit_code = code
            self._cluster.finish(pod, Phase.SUCCEEDED if not code else Phase.FAILED)
            return
        pod.reason = "Error" if code else "Completed"
        self._ended(pod, code)

    def _ended(self, pod: PodState, code: int) -> None:
        cluster = self._cluster
        policy = cluster.classes[pod.cls].template.restart_policy
        pod.exit_code = code
        if policy == "Never" or (policy == "OnFailure" and not code):
            cluster.finish(pod, Phase.FAILED if code else Phase.SUCCEEDED)
            return
        ran_us = cluster.timeline.now_us - max(pod.ready_us, pod.bound_us)
        cluster.set_ready(pod, ready=False)
        delay_us = 0 if ran_us >= GOOD_RUN_US else pod.restart_delay_us
        pod.restart_delay_us = min(max(delay_us * 2, RESTART_DELAY_US), RESTART_DELAY_US_MAX)
        pod.restarts += 1
        pod.life += 1
        if delay_us:
            pod.reason = "CrashLoopBackOff"
            cluster.log("BackOff", f"{pod.namespace}/{pod.name}", f"restarting in {delay_us // US} s")
        start_us = self._start_us + cluster.rng.jitter(self._start_jitter_us)
        cluster.timeline.plan(cluster.timeline.now_us + delay_us + start_us, Due.RESTART, pod.uid, pod.life)
        owner = cluster.workloads.get(pod.owner)
        if owner is not None:
            cluster.dirty[owner.uid] = None

    def restarted(self, uid: int, life: int) -> None:
        """A container runs again."""
        pod = self._alive(uid, life)
        if pod is None:
            return
        pod.reason = ""
        cluster = self._cluster
        cluster.log("Restarted", f"{pod.namespace}/{pod.name}", str(pod.restarts))
        self._run(pod, cluster.classes[pod.cls], cluster.nodes[pod.node])

    def delete(self, pod: PodState, why: str) -> None:
        """Ask a pod to go: at once when it runs nowhere, else after its containers have stopped."""
        cluster = self._cluster
        if pod.deleting:
            return
        if pod.node == NOWHERE or pod.is_terminal:
            cluster.forget(pod)
            return
        cluster.mark_deleting(pod)
        cluster.log("Killing", f"{pod.namespace}/{pod.name}", why)
        self._plan_gone(pod)

    def _plan_gone(self, pod: PodState) -> None:
        cluster = self._cluster
        grace_us = int(cluster.classes[pod.cls].template.grace_s * US)
        cluster.timeline.plan(
            cluster.timeline.now_us + min(self._stop_us, grace_us), Due.GONE, pod.uid, pod.life
        )

    def gone(self, uid: int, life: int) -> None:
        """The containers have stopped; a node that is not ready cannot say so."""
        pod = self._alive(uid, life)
        if pod is not None and self._cluster.nodes[pod.node].ready:
            self._cluster.forget(pod)

    def node_back(self, node: NodeState) -> None:
        """A node is ready again: its pods are too, and those that were to go may."""
        cluster = self._cluster
        for uid in list(node.pods):
            pod = cluster.pods[uid]
            if pod.deleting:
                self._plan_gone(pod)
            elif pod.phase == Phase.RUNNING and not pod.reason:
                cluster.set_ready(pod, ready=True)
