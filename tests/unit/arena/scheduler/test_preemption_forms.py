"""Preemption by arithmetic and by taking pods away from the table: two ways to one history, to the byte."""

import random

import pytest

from skep.arena.embedded import EmbeddedCluster
from skep.arena.scheduler.placing import Placer


def node(number):
    room = {"cpu": "16", "memory": "64Gi", "pods": "20"}
    return {"kind": "Node", "metadata": {"name": f"n{number}"}, "status": {"allocatable": room}}


def deployment(rng, number, nodes):
    labels = {"app": f"d{number}"}
    requests = {"cpu": rng.choice(["1", "3", "8", "13"]), "memory": rng.choice(["1Gi", "20Gi"])}
    spec = {
        "containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}],
        "priority": rng.choice([0, 5, 50, 100, 200]),
    }
    return {
        "kind": "Deployment",
        "metadata": {"name": f"d{number}"},
        "spec": {
            "replicas": rng.randint(nodes, 3 * nodes),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def storm(seed, nodes):
    rng = random.Random(seed)
    cluster = EmbeddedCluster([node(at) for at in range(nodes)], seed)
    if seed % 2:
        budget = {"minAvailable": "60%", "selector": {"matchLabels": {"app": "d1"}}}
        cluster.apply({"kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": budget})
    for number in range(8):
        cluster.apply(deployment(rng, number, nodes))
        cluster.run_until(20 * number + rng.choice([1, 7, 19]))
    cluster.run_until(250)
    return cluster


@pytest.mark.parametrize(("nodes", "seed"), [(5, 0), (5, 1), (12, 2), (12, 3), (48, 0)])
def test_both_ways_lead_to_the_same_history(nodes, seed, monkeypatch):
    by_arithmetic = storm(seed, nodes)
    assert sum(b'"Preempted"' in line for line in by_arithmetic.events()) > 2
    monkeypatch.setattr(Placer, "is_local", lambda *_: False)
    assert storm(seed, nodes).digest() == by_arithmetic.digest()
