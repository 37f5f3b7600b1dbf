"""What happens to nodes: added, removed, cordoned, drained, tainted, not ready; and to the pods on them.

As the node life cycle controller does it: a node that is not ready is tainted, pods that do not bear a NoExecute taint
are evicted, and pods bear "not ready" for 300 s unless they say otherwise.
"""

from collections.abc import Sequence
from typing import Final

from skep.arena.cluster import Cluster
from skep.arena.kubelet import Kubelet
from skep.arena.objects import Effect, Node, Taint, Toleration
from skep.arena.scheduler.matching import tolerates
from skep.arena.scheduler.queue import Hint
from skep.arena.state import US, NodeState
from skep.arena.timeline import Due

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
DEFAULT_STAY_S: Final = 300.0
"""`tolerationSeconds` that the DefaultTolerationSeconds admission plugin gives every pod."""


class NodeLife:
    """Changes nodes."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet) -> None:
        self._cluster, self._kubelet = cluster, kubelet

    def apply(self, spec: Node) -> NodeState:
        """Add a node, or take up its changed declaration."""
        cluster = self._cluster
        node_id = cluster.node_ids.get(spec.name)
        if node_id is not None:
            node = cluster.nodes[node_id]
            self._change(node, spec)
            return node
        node = NodeState(
            cluster.next_node_id,
            spec,
            spec.ready,
            spec.unschedulable,
            images=dict(spec.images),
            pods={},
            pulled={},
        )
        node.row = [0] * len(cluster.columns)
        for name in spec.allocatable:
            cluster.columns.of(name)
        node.taints = self._effective(node)
        cluster.next_node_id += 1
        cluster.nodes[node.id] = node
        cluster.node_ids[spec.name] = node.id
        cluster.table.invalidate()
        cluster.log("NodeAdded", spec.name)
        cluster.on_hint(Hint.NODE_ADDED)
        return node

    def _change(self, node: NodeState, spec: Node) -> None:
        cluster, old = self._cluster, node.spec
        if spec == old:
            return
        node.spec = spec
        node.images = dict(spec.images)
        if spec.labels != old.labels or spec.allocatable != old.allocatable:
            cluster.table.invalidate()
        cluster.log("NodeChanged", spec.name)
        if spec.labels != old.labels:
            cluster.on_hint(Hint.NODE_LABELS)
        if spec.allocatable != old.allocatable:
            cluster.on_hint(Hint.NODE_CAPACITY)
        node.cordoned = spec.unschedulable
        if spec.ready != node.ready:
            self.set_ready(node, ready=spec.ready)
        else:
            self._retaint(node)

    @staticmethod
    def _effective(node: NodeState) -> tuple[Taint, ...]:
        if node.ready and not node.cordoned and not node.spec.taints:
            return ()
        taints = [taint for taint in node.spec.taints if taint.key not in {NOT_READY, UNSCHEDULABLE}]
        if node.cordoned:
            taints.append(Taint(UNSCHEDULABLE, "", Effect.NO_SCHEDULE))
        if not node.ready:
            taints.append(Taint(NOT_READY, "", Effect.NO_SCHEDULE))
            taints.append(Taint(NOT_READY, "", Effect.NO_EXECUTE))
        return tuple(taints)

    def _retaint(self, node: NodeState) -> None:
        cluster = self._cluster
        before, node.taints = node.taints, self._effective(node)
        cluster.table.node_changed(node)
        if node.taints != before:
            cluster.on_hint(Hint.NODE_TAINTS)
            if any(taint.effect == Effect.NO_EXECUTE for taint in node.taints):
                for uid in list(node.pods):
                    self.plan_eviction(uid)

    def remove(self, node: NodeState) -> None:
        """Take a node away; its pods are gone with it."""
        cluster = self._cluster
        cluster.log("NodeRemoved", node.spec.name)
        for uid in list(node.pods):
            cluster.forget(cluster.pods[uid])
        for uid in list(cluster.nominated.get(node.id, ())):
            cluster.denominate(cluster.pods[uid])
        del cluster.nodes[node.id]
        del cluster.node_ids[node.spec.name]
        cluster.table.invalidate()
        cluster.on_hint(Hint.NODE_LABELS)

    def cordon(self, node: NodeState, *, cordoned: bool) -> None:
        """Keep new pods off a node, or let them come again."""
        if node.cordoned != cordoned:
            node.cordoned = cordoned
            self._cluster.log("NodeCordoned" if cordoned else "NodeUncordoned", node.spec.name)
            self._retaint(node)

    def drain(self, node: NodeState) -> None:
        """Cordon a node and delete its pods (disruption budgets are not waited for)."""
        self.cordon(node, cordoned=True)
        for uid in list(node.pods):
            self._kubelet.delete(self._cluster.pods[uid], "drained")

    def set_ready(self, node: NodeState, *, ready: bool) -> None:
        """A node stops answering, or answers again."""
        if node.ready == ready:
            return
        cluster = self._cluster
        node.ready = ready
        cluster.log("NodeReady" if ready else "NodeNotReady", node.spec.name)
        if ready:
            self._kubelet.node_back(node)
        else:
            for uid in node.pods:
                cluster.set_ready(cluster.pods[uid], ready=False)
        self._retaint(node)

    def taint(self, node: NodeState, taints: Sequence[Taint]) -> None:
        """Replace a node's declared taints."""
        from msgspec.structs import replace

        node.spec = replace(node.spec, taints=tuple(taints))
        self._retaint(node)

    def plan_eviction(self, uid: int) -> None:
        """Plan a pod's eviction where its node bears a NoExecute taint that it does not bear for ever."""
        cluster = self._cluster
        pod = cluster.pods[uid]
        stay_s = self._stay_s(cluster.nodes[pod.node], cluster.classes[pod.cls].template.tolerations)
        if stay_s is not None and not pod.deleting:
            cluster.timeline.plan(cluster.timeline.now_us + int(stay_s * US), Due.EVICT, uid, pod.node)

    @staticmethod
    def _stay_s(node: NodeState, tolerations: Sequence[Toleration]) -> float | None:
        """Return how long the node's NoExecute taints let a pod stay; None is for ever."""
        shortest: float | None = None
        for taint in node.taints:
            if taint.effect != Effect.NO_EXECUTE:
                continue
            matching = [toleration for toleration in tolerations if tolerates(toleration, taint)]
            if matching:
                bounded = [toleration.seconds for toleration in matching if toleration.seconds is not None]
                if len(bounded) < len(matching):
                    continue
                stay_s = min(bounded)
            elif taint.key == NOT_READY:
                stay_s = DEFAULT_STAY_S
            else:
                return 0.0
            shortest = stay_s if shortest is None else min(shortest, stay_s)
        return shortest

    def evict(self, uid: int, node_id: int) -> None:
        """Evict a pod when the taint is still there."""
        cluster = self._cluster
        pod = cluster.pods.get(uid)
        if pod is None or pod.deleting or pod.node != node_id or node_id not in cluster.nodes:
            return
        tolerations = cluster.classes[pod.cls].template.tolerations
        if self._stay_s(cluster.nodes[node_id], tolerations) is not None and not pod.is_terminal:
            self._kubelet.delete(pod, "evicted by taint")
