"""A Kubernetes cluster in this process, on virtual time: what the `embedded` driver drives.

The same manifests, calls and seed give the same history, to the byte. A cluster is not shared between threads; `fork`
gives an independent copy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from skep.arena import snapshot
from skep.arena.cluster import Cluster
from skep.arena.history import History, Sink
from skep.arena.kubelet import Kubelet
from skep.arena.manifests import controller_of, identity, parse
from skep.arena.node_life import NodeLife
from skep.arena.objects import Node, Parsed, Taint
from skep.arena.observation import NodeUsage, Observation
from skep.arena.profile import Profile
from skep.arena.registry import Registry
from skep.arena.scheduler.classes import CPU, MEMORY
from skep.arena.scheduler.explain import Decision
from skep.arena.scheduler.loop import SchedulerLoop
from skep.arena.state import US, NodeState, Phase, PodState
from skep.arena.timeline import Due
from skep.errors.arena import ObjectNotFound

DAY_S: Final = 86_400.0
NODES_OBSERVED_MAX: Final = 64


class EmbeddedCluster:
    """Objects in, virtual time passes, observations out."""

    def __init__(
        self,
        nodes: Iterable[Node | dict[str, Any]] = (),
        seed: int = 0,
        profile: Profile | None = None,
        *,
        sink: Sink | None = None,
    ) -> None:
        self.profile = profile or Profile()
        self.seed = seed
        self.history = History(self.profile.records_max, sink)
        self.cluster = cluster = Cluster(self.profile, seed, self.history)
        self.kubelet = kubelet = Kubelet(cluster)
        self.node_life = NodeLife(cluster, kubelet)
        self.scheduler = scheduler = SchedulerLoop(cluster, kubelet)
        self.registry = Registry(cluster, kubelet, self.node_life, scheduler)
        self._handlers: tuple[Callable[[int, int], None], ...] = (
            lambda _a, _b: scheduler.run(),
            lambda _a, _b: scheduler.flush(),
            lambda _a, _b: scheduler.retry(),
            kubelet.started,
            kubelet.ready,
            kubelet.available,
            kubelet.out_of_memory,
            kubelet.exited,
            kubelet.restarted,
            kubelet.gone,
            self.node_life.evict,
            self.registry.wake,
        )
        cluster.on_bound = self._on_bound
        for node in nodes:
            self.node_life.apply(node if isinstance(node, Node) else self._node(node))

    @staticmethod
    def _node(manifest: dict[str, Any]) -> Node:
        found = parse(manifest)
        if not isinstance(found, Node):
            raise ObjectNotFound(f"a node's manifest is needed, not a {manifest.get('kind')}")
        return found

    def _on_bound(self, pod: PodState) -> None:
        self.kubelet.on_bound(pod)
        if self.cluster.nodes[pod.node].taints:
            self.node_life.plan_eviction(pod.uid)

    # Objects.

    def apply(self, manifest: dict[str, Any] | Parsed, *, lifetimes_s: Sequence[float] = ()) -> None:
        """Create an object, or bring it to what the manifest declares.

        `lifetimes_s` are how long the workload's pods run before they succeed, in turn (a trace's pod life cycles).
        An object whose controller is here too is left to it: our own controllers make its like.
        Raises: InvalidManifest, InvalidQuantity, UnknownKind; the cluster is then unchanged.
        """
        found = parse(manifest) if isinstance(manifest, dict) else manifest
        if isinstance(manifest, dict) and controller_of(manifest) in self.cluster.workload_uids:
            return
        self.registry.apply(found, [int(seconds * US) for seconds in lifetimes_s])
        self._reconcile()

    def delete(self, manifest: dict[str, Any]) -> None:
        """Delete an object and what it owns; only kind, namespace and name are read. Raises: ObjectNotFound."""
        self.registry.delete(*identity(manifest))
        self._reconcile()

    # Nodes.

    def node(self, name: str) -> NodeState:
        """Return a node's state. Raises: ObjectNotFound."""
        node_id = self.cluster.node_ids.get(name)
        if node_id is None:
            raise ObjectNotFound(f"the simulated cluster has no node {name!r}", name=name)
        return self.cluster.nodes[node_id]

    def cordon(self, name: str, *, cordoned: bool = True) -> None:
        """Keep new pods off a node, or let them come again."""
        self.node_life.cordon(self.node(name), cordoned=cordoned)
        self._reconcile()

    def drain(self, name: str) -> None:
        """Cordon a node and delete its pods."""
        self.node_life.drain(self.node(name))
        self._reconcile()

    def set_node_ready(self, name: str, *, ready: bool) -> None:
        """Let a node stop answering, or answer again."""
        self.node_life.set_ready(self.node(name), ready=ready)
        self._reconcile()

    def taint(self, name: str, taints: Sequence[Taint]) -> None:
        """Replace a node's declared taints."""
        self.node_life.taint(self.node(name), taints)
        self._reconcile()

    def remove_node(self, name: str) -> None:
        """Take a node away, with its pods."""
        self.node_life.remove(self.node(name))
        self._reconcile()

    # Time.

    @property
    def now_s(self) -> float:
        """Return virtual time."""
        return self.cluster.timeline.now_us / US

    def run_until(self, t_s: float) -> None:
        """Let virtual time pass to `t_s`; a time that has passed changes nothing."""
        self._run(round(t_s * US), stops_idle=False)

    def run_idle(self, within_s: float = DAY_S) -> bool:
        """Let time pass until nothing but retries is planned; False when `within_s` ran out first."""
        timeline = self.cluster.timeline
        self._run(timeline.now_us + round(within_s * US), stops_idle=True)
        return not self._is_busy()

    def _is_busy(self) -> bool:
        return bool(self.cluster.timeline.busy or self.scheduler.planned or self.scheduler.queue.backing_off)

    def _run(self, until_us: int, *, stops_idle: bool) -> None:
        timeline, handlers, settle = self.cluster.timeline, self._handlers, self.history.settle
        heap, pop, dirty = timeline.heap, timeline.pop, self.cluster.dirty
        while heap and heap[0][0] <= until_us:
            if stops_idle and heap[0][2] == Due.FLUSH and not self._is_busy():
                return
            _, _, due, first, second = pop()
            handlers[due](first, second)
            if dirty:
                self._reconcile()
            settle()
        if not stops_idle and until_us > timeline.now_us:
            timeline.now_us = until_us

    def _reconcile(self) -> None:
        dirty = self.cluster.dirty
        while dirty:
            uid = next(iter(dirty))
            del dirty[uid]
            self.registry.reconcile(uid)
        self.history.settle()

    # What is there.

    def observe(self, namespace: str, name: str) -> Observation:
        """Count a workload's pods that are not being deleted, and say why those that are not ready are not.

        Up to `NODES_OBSERVED_MAX` nodes are described too. Raises: ObjectNotFound (neither a workload nor a label
        `app` of this name).
        """
        ready = pending = total = restarts = kills = 0
        reasons: dict[str, int] = {}
        unschedulable: dict[int, int] = {}
        for pod in self.registry.pods_of(namespace, name):
            if pod.deleting:
                continue
            total += 1
            restarts += pod.restarts
            kills += pod.oom_kills
            if pod.ready:
                ready += 1
                continue
            pending += pod.phase == Phase.PENDING
            if pod.reason == "Unschedulable":
                unschedulable[pod.cls] = unschedulable.get(pod.cls, 0) + 1
            elif pod.reason:
                reasons[pod.reason] = reasons.get(pod.reason, 0) + 1
        for number, pods in unschedulable.items():
            for reason in self.scheduler.reasons(self.cluster.classes[number]):
                reasons[reason] = reasons.get(reason, 0) + pods
        return Observation(
            ready=ready,
            pending=pending,
            total=total,
            restarts=restarts,
            oom_killed=kills,
            reasons=reasons,
            nodes=self.usage() if len(self.cluster.nodes) <= NODES_OBSERVED_MAX else (),
        )

    def pod(self, namespace: str, name: str) -> PodState:
        """Return a pod's state. Raises: ObjectNotFound."""
        uid = self.cluster.pod_uids.get(f"{namespace}/{name}")
        if uid is None:
            raise ObjectNotFound(f"the simulated cluster has no pod {namespace}/{name}", name=name)
        return self.cluster.pods[uid]

    def pods(self, namespace: str | None = None) -> list[PodState]:
        """Return the pods, in the order in which they came."""
        return [pod for pod in self.cluster.pods.values() if namespace is None or pod.namespace == namespace]

    def node_of(self, pod: PodState) -> str | None:
        """Return the name of a pod's node."""
        node = self.cluster.nodes.get(pod.node)
        return None if node is None else node.spec.name

    def usage(self) -> tuple[NodeUsage, ...]:
        """Return what share of every node is requested."""
        return tuple(
            NodeUsage(
                name=node.spec.name,
                cpu=node.row[CPU] / (node.spec.allocatable.get("cpu") or 1),
                memory=node.row[MEMORY] / (node.spec.allocatable.get("memory") or 1),
                pods=len(node.pods),
            )
            for node in self.cluster.nodes.values()
        )

    def explain(self, pod: str | PodState) -> Decision:
        """Return the last scheduling decision on a pod ("namespace/name" or its state).

        Raises: ObjectNotFound (no such pod, never tried, or its explanation has been let go by the bound).
        """
        if isinstance(pod, str):
            namespace, _, name = pod.rpartition("/")
            pod = self.pod(namespace or "default", name)
        capture = self.scheduler.captures.get(pod.uid)
        if capture is None:
            raise ObjectNotFound(
                f"no scheduling decision on {pod.namespace}/{pod.name} is kept", name=pod.name
            )
        return capture.explained()

    def events(self) -> Iterator[bytes]:
        """Yield what happened, oldest first, as lines of JSON: the last `profile.records_max` at least half."""
        return self.history.lines()

    def digest(self) -> str:
        """Return the digest of all that ever happened: two runs are equal to the byte when theirs are."""
        return self.history.digest()

    # Copies.

    def snapshot(self) -> bytes:
        """Return the whole state, to be taken up by `restore`."""
        return snapshot.dump(self)

    @classmethod
    def restore(cls, data: bytes, *, sink: Sink | None = None) -> "EmbeddedCluster":
        """Return the cluster that `snapshot` wrote. Raises: SnapshotUnreadable."""
        return snapshot.load(data, lambda seed, profile: cls((), seed, profile, sink=sink))

    def fork(self) -> "EmbeddedCluster":
        """Return an independent copy, from which the same calls lead to the same history."""
        return snapshot.fork(self, lambda seed, profile: EmbeddedCluster((), seed, profile))
