"""Why a workload's pods stand where they stand, after a trace was replayed: each pod's last scheduling decision."""

from collections.abc import Sequence

from skep.arena.embedded import EmbeddedCluster
from skep.arena.manifests import parse
from skep.arena.nodes import NodePlan, node_manifests
from skep.arena.objects import Node
from skep.arena.profile import Profile
from skep.arena.replay import Replay
from skep.arena.scheduler.explain import Decision
from skep.arena.trace.trace import Trace
from skep.arena.workload import WorkloadRef
from skep.errors.arena import ObjectNotFound


def explain_workload(
    trace: Trace, workload: WorkloadRef, nodes: Sequence[NodePlan], duration_s: float, seed: int
) -> list[Decision]:
    """Replay a trace and return the decisions, by the pods' names. Raises: ObjectNotFound (no such workload)."""
    parsed = [parse(manifest) for manifest in node_manifests(tuple(nodes))]
    cluster = EmbeddedCluster(
        [node for node in parsed if isinstance(node, Node)], seed, Profile(explains=True)
    )
    Replay(cluster, trace).run_until(duration_s)
    decisions = []
    for pod in cluster.registry.pods_of(workload.namespace, workload.name):
        try:
            decisions.append(cluster.explain(pod))
        except ObjectNotFound:
            # Bound by name or gated: the scheduler never decided on it.
            continue
    return sorted(decisions, key=lambda one: one.pod)
