"""What holds after every event, whatever is done: nothing is oversubscribed, no pod is lost or counted twice."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.arena.embedded import EmbeddedCluster
from skep.arena.objects import ReplicaSet
from skep.arena.profile import Profile
from skep.arena.scheduler.classes import CPU, MEMORY, PODS
from skep.arena.state import NOWHERE

CPUS, MEMORIES = ("100m", "400m", "900m", "3"), ("64Mi", "500Mi", "2Gi")


def check(cluster):
    """Recount everything from the pods and compare."""
    store = cluster.cluster
    on_node = {node_id: [] for node_id in store.nodes}
    for pod in store.pods.values():
        if pod.node != NOWHERE and not pod.is_terminal:
            on_node[pod.node].append(pod)
    for node_id, node in store.nodes.items():
        pods = on_node[node_id]
        assert set(node.pods) == {pod.uid for pod in pods}
        templates = [store.classes[pod.cls].template for pod in pods]
        used = {PODS: len(pods)}
        used[CPU] = sum(template.requests.get("cpu", 0) for template in templates)
        used[MEMORY] = sum(template.requests.get("memory", 0) for template in templates)
        allocatable = node.spec.allocatable
        for column, name in ((PODS, "pods"), (CPU, "cpu"), (MEMORY, "memory")):
            assert (node.row + [0] * 5)[column] == used[column]
            assert used[column] <= allocatable.get(name, 0), "oversubscribed"
        assert sum(node.all.values()) == len(pods)
        assert sum(node.live.values()) == sum(not pod.deleting for pod in pods)
    for workload in store.workloads.values():
        pods = [store.pods[uid] for uid in workload.pods]
        assert workload.active == sum(pod.is_active for pod in pods)
        assert workload.ready == sum(pod.ready for pod in pods)
        assert workload.available == sum(pod.available for pod in pods)
        if isinstance(workload.spec, ReplicaSet):
            assert workload.active == workload.spec.replicas
    queue = cluster.scheduler.queue
    waiting = {pod.uid for pod in store.pods.values() if pod.node == NOWHERE and not pod.is_terminal}
    assert set(queue.where) == waiting
    assert sum(cls.refs for cls in store.classes.values()) == len(store.pods)
    assert len(store.pod_uids) == len(store.pods)


def workload(rng, kind, name):
    labels = {"app": name}
    resources = {"requests": {"cpu": rng.choice(CPUS), "memory": rng.choice(MEMORIES)}}
    spec = {"containers": [{"name": "c", "image": rng.choice("xy"), "resources": resources}]}
    spec["priority"] = rng.choice([0, 0, 10])
    notes = {"simkube.io/lifetime-seconds": str(rng.randrange(1, 50))} if rng.random() < 0.2 else {}
    template = {"metadata": {"labels": labels, "annotations": notes}, "spec": spec}
    made = {"kind": kind, "metadata": {"name": name}, "spec": {"template": template}}
    if kind == "Job":
        made["spec"] |= {"parallelism": 2, "completions": 3}
        notes["arena.skep/runs-s"] = "7"
    else:
        made["spec"] |= {"replicas": rng.randrange(8), "selector": {"matchLabels": labels}}
    return made


def node(rng, name):
    room = {
        "cpu": rng.choice(["1", "2", "4"]),
        "memory": rng.choice(["1Gi", "4Gi"]),
        "pods": rng.choice(["3", "20"]),
    }
    return {"kind": "Node", "metadata": {"name": name}, "status": {"allocatable": room}}


def disturb(rng, cluster, applied):
    """Do one thing at random."""
    names = list(cluster.cluster.node_ids)
    choice = rng.random()
    if choice < 0.5:
        kind = rng.choice(["Deployment", "StatefulSet", "ReplicaSet", "Job"])
        manifest = workload(rng, kind, f"{kind.lower()}-{rng.randrange(2)}")
        applied[kind, manifest["metadata"]["name"]] = manifest
        cluster.apply(manifest)
    elif choice < 0.6 and applied:
        key = rng.choice(list(applied))
        gone = applied.pop(key)
        if (key[0], "default", key[1]) in cluster.cluster.workload_uids:
            cluster.delete(gone)
    elif choice < 0.75 or not names:
        name = f"n{rng.randrange(100)}"
        if name not in names:
            cluster.apply(node(rng, name))
    else:
        name = rng.choice(names)
        act = rng.randrange(5)
        if act == 0:
            cluster.remove_node(name)
        elif act in (1, 2):
            cluster.cordon(name, cordoned=act == 1)
        elif act == 3:
            cluster.set_node_ready(name, ready=not cluster.node(name).ready)
        else:
            cluster.drain(name)


def storm(seed, steps, *, vector_from):
    rng = random.Random(seed)
    cluster = EmbeddedCluster(
        (node(rng, f"n{at}") for at in range(3)), seed, Profile(vector_from=vector_from)
    )
    applied = {}
    for _ in range(steps):
        disturb(rng, cluster, applied)
        cluster.run_until(cluster.now_s + rng.choice([0, 0.5, 3, 30, 400]))
        check(cluster)
    return cluster


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_is_oversubscribed_lost_or_counted_twice(seed):
    in_lists = storm(seed, 40, vector_from=1000)
    in_arrays = storm(seed, 40, vector_from=1)
    assert in_lists.digest() == in_arrays.digest()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_a_storm_replays_to_the_byte_and_its_snapshot_reads_back(seed):
    one, two = (storm(seed, 25, vector_from=1000) for _ in range(2))
    assert one.snapshot() == two.snapshot()
    assert EmbeddedCluster.restore(one.snapshot()).snapshot() == one.snapshot()
