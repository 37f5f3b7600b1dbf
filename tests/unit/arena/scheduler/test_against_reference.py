"""The fast scheduler and the slow one agree on every node's verdict and every score, in lists and in arrays."""

import pytest

from skep.arena.embedded import EmbeddedCluster
from skep.arena.manifests import parse
from skep.arena.profile import Profile
from skep.arena.scheduler.plugins import nodes_to_find
from skep.arena.scheduler.table import _zone_order


def slow_view(cluster, kinds):
    """Return the cluster as the reference sees it, in scheduling order."""
    judge, ref_node, ref_pod = kinds
    nodes = []
    for state in _zone_order(cluster.cluster.nodes.values()):
        spec = state.spec
        node = ref_node(
            spec.name, spec.labels, spec.allocatable, state.taints, state.cordoned, dict(spec.images), []
        )
        for uid in state.pods:
            pod = cluster.cluster.pods[uid]
            cls = cluster.cluster.classes[pod.cls]
            node.pods.append(ref_pod(pod.namespace, cls.template, pod.priority, None, pod.deleting))
        nodes.append(node)
    return judge(nodes)


def expected(view, pod, start):
    """Return (rejections, feasible nodes, evaluated) as the sampling rule says."""
    wanted, rejections, feasible = nodes_to_find(len(view.nodes)), {}, []
    for at in range(len(view.nodes)):
        node = view.nodes[(start + at) % len(view.nodes)]
        plugin = view.rejection(pod, node)
        if plugin is None:
            feasible.append(node)
            if len(feasible) == wanted:
                return rejections, feasible, at + 1
        else:
            rejections[node.name] = plugin
    return rejections, feasible, len(view.nodes)


def check_one(cluster, manifest, kinds, name):
    parsed = parse(manifest)
    view = slow_view(cluster, kinds)
    pod = kinds[2](parsed.namespace, parsed.template)
    start = cluster.scheduler.placer.next_start
    rejections, feasible, evaluated = expected(view, pod, start)
    cluster.apply(manifest)
    cluster.run_until(cluster.now_s)
    decision = cluster.explain(name)
    found = {node: rejection.plugin for node, rejection in decision.rejections.items()}
    assert decision.feasible == len(feasible)
    if feasible and len(decision.rejections) + decision.feasible != evaluated:
        assert decision.evaluated == evaluated
    else:
        assert found == rejections
    if len(feasible) < 2:
        assert decision.node == (feasible[0].name if feasible else None)
        return
    scores = view.scores(pod, feasible)
    zeros = {"NodeAffinity": 0, "PodTopologySpread": 0, "InterPodAffinity": 0}
    assert {node: zeros | parts for node, parts in decision.scores.items()} == scores
    best = max(sum(parts.values()) for parts in scores.values())
    ties = [node for node, parts in scores.items() if sum(parts.values()) == best]
    assert decision.node in ties
    assert decision.ties == len(ties)


def run(maker, kinds, seed, *, vector, nodes, pods, rich):
    made = maker(seed)
    profile = Profile(vector_from=1 if vector else 10_000)
    cluster = EmbeddedCluster([made.node(at, rich) for at in range(nodes)], seed=seed, profile=profile)
    for number in range(pods):
        manifest = made.pod(number, rich)
        check_one(cluster, manifest, kinds, f"{manifest['metadata']['namespace']}/pod-{number}")
        if number % 5 == 4:
            cluster.run_until(cluster.now_s + made.random.choice([0, 1, 5]))
        if number % 7 == 6:
            running = [pod for pod in cluster.pods() if pod.node >= 0]
            if running:
                gone = made.random.choice(running)
                cluster.delete({"kind": "Pod", "metadata": {"name": gone.name, "namespace": gone.namespace},
                                "spec": {"containers": [{"name": "c"}]}})  # fmt: skip
    return cluster.digest()


@pytest.mark.parametrize("seed", range(30))
def test_small_random_clusters_are_judged_alike_in_lists_arrays_and_by_the_slow_scheduler(
    maker, reference, seed
):
    nodes = 1 + seed % 12
    in_lists = run(maker, reference, seed, vector=False, nodes=nodes, pods=40, rich=seed % 4 != 0)
    in_arrays = run(maker, reference, seed, vector=True, nodes=nodes, pods=40, rich=seed % 4 != 0)
    assert in_lists == in_arrays


@pytest.mark.parametrize("vector", [False, True], ids=["lists", "arrays"])
@pytest.mark.parametrize("seed", [100, 101])
def test_sampled_nodes_are_the_rotating_window_of_the_rule(maker, reference, seed, vector):
    run(maker, reference, seed, vector=vector, nodes=230, pods=15, rich=seed % 2 == 0)


@pytest.mark.parametrize(
    ("nodes", "wanted"), [(1, 1), (99, 99), (100, 100), (250, 120), (1000, 420), (5000, 500), (10_000, 500)]
)
def test_number_of_nodes_to_find_follows_the_adaptive_percentage(nodes, wanted):
    assert nodes_to_find(nodes) == wanted
