"""The queue's order, its backoff, and the events that let waiting pods try again."""

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.arena.embedded import EmbeddedCluster
from skep.arena.profile import Profile
from skep.arena.scheduler.queue import SchedulingQueue, backoff_us


def node(name="n", cpu="1", **labels):
    status = {"allocatable": {"cpu": cpu, "memory": "8Gi"}}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def pod(name, cpu="1", **spec):
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]
    return {"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def attempts(cluster, name):
    lines = map(json.loads, cluster.events())
    return [
        float(line["t"])
        for line in lines
        if line["kind"] in {"Scheduled", "FailedScheduling"} and line["object"] == f"default/{name}"
    ]


@pytest.mark.parametrize(("tries", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (50, 10)])
def test_backoff_doubles_from_one_second_to_ten(tries, seconds):
    assert backoff_us(tries) == seconds * 1_000_000


def test_higher_priority_goes_first_then_the_earlier():
    cluster = EmbeddedCluster([node(cpu="2")])
    for name, priority in (("low", 1), ("first", 5), ("second", 5), ("high", 9)):
        cluster.apply(pod(name, priority=priority, preemptionPolicy="Never"))
    cluster.run_until(0)
    lines = map(json.loads, cluster.events())
    order = [line["object"] for line in lines if line["kind"] in {"Scheduled", "FailedScheduling"}]
    assert order == [f"default/{name}" for name in ("high", "first", "second", "low")]


def test_an_event_that_cannot_help_does_not_wake_a_pod():
    cluster = EmbeddedCluster([node()])
    cluster.apply(pod("big", cpu="4"))
    cluster.run_until(10)
    cluster.apply({"kind": "ConfigMap", "metadata": {"name": "c"}})
    cluster.run_until(100)
    assert attempts(cluster, "big") == [0]


def test_a_freed_node_is_tried_after_the_backoff():
    cluster = EmbeddedCluster([node()])
    cluster.apply(pod("a"))
    cluster.run_until(0)
    cluster.apply(pod("b"))
    cluster.run_until(0.1)
    cluster.remove_node("n")
    cluster.apply(node("m"))
    cluster.run_until(30)
    assert attempts(cluster, "b") == [0, 1]


def test_repeated_failures_back_off_further_each_time():
    cluster = EmbeddedCluster([node()])
    cluster.apply(pod("big", cpu="4"))
    for at in range(400):
        cluster.run_until(at / 10)
        cluster.apply(node(f"n{at}"))
    tried = attempts(cluster, "big")
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(tried)]
    assert gaps == [1, 2, 4, 8, 10, 10]


def test_a_waiting_pod_is_tried_again_after_five_minutes():
    cluster = EmbeddedCluster([node()])
    cluster.apply(pod("big", cpu="4"))
    cluster.run_until(299)
    assert len(attempts(cluster, "big")) == 1
    cluster.run_until(331)
    assert len(attempts(cluster, "big")) == 2


def test_a_preempting_pod_keeps_its_place_while_victims_leave():
    cluster = EmbeddedCluster([node()])
    cluster.apply(pod("low", priority=1))
    cluster.run_until(10)
    cluster.apply(pod("high", priority=9, terminationGracePeriodSeconds=5))
    cluster.run_until(10.5)
    cluster.apply(pod("sneaky", priority=1))
    cluster.run_until(60)
    assert cluster.node_of(cluster.pod("default", "high")) == "n"
    assert cluster.node_of(cluster.pod("default", "sneaky")) is None


def test_a_preempting_pod_takes_no_second_victim_while_the_first_leaves():
    cluster = EmbeddedCluster([node("n0"), node("n1")])
    cluster.apply(pod("low0", priority=1))
    cluster.apply(pod("low1", priority=1))
    cluster.run_until(10)
    cluster.apply(pod("high", priority=9))
    cluster.run_until(60)
    assert len(cluster.pods()) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40), st.data())
def test_the_queue_pops_every_pod_once_in_order(entries, data):
    queue = SchedulingQueue()
    for uid, (priority, at) in enumerate(entries):
        queue.activate(uid, priority, at)
    gone = data.draw(st.sets(st.integers(0, 40)))
    for uid in gone:
        queue.remove(uid)
    popped = []
    while (uid := queue.pop()) is not None:
        popped.append(uid)
    expected = sorted(
        (uid for uid in range(len(entries)) if uid not in gone),
        key=lambda uid: (-entries[uid][0], entries[uid][1], uid),
    )
    assert popped == expected


@pytest.mark.parametrize("vector_from", [1, 1000], ids=["arrays", "lists"])
def test_a_pod_that_goes_to_its_nominated_node_is_explained_by_that_node_alone(vector_from):
    nodes = [node("n0", cpu="1"), node("n1", cpu="2")]
    cluster = EmbeddedCluster(nodes, profile=Profile(vector_from=vector_from))
    cluster.apply(pod("low", cpu="2", priority=1))
    cluster.run_until(10)
    cluster.apply(pod("high", cpu="2", priority=9))
    cluster.run_until(10)
    first = cluster.explain("default/high")
    assert (first.outcome, first.node, first.victims) == ("nominated", "n1", ("default/low",))
    cluster.run_until(60)
    then = cluster.explain("default/high")
    assert (then.outcome, then.node, then.attempt, then.evaluated) == ("scheduled", "n1", 2, 1)
    assert then.rejections == {}
    assert set(then.scores) == {"n1"}


@pytest.mark.parametrize("seed", range(12))
def test_preemption_by_arithmetic_and_by_trying_choose_the_same_victims(seed, monkeypatch):
    def story():
        rng = random.Random(seed)
        cluster = EmbeddedCluster([node(f"n{at}", cpu=str(rng.randrange(1, 5))) for at in range(6)], seed)
        budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "kept"}}}
        cluster.apply({"kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": budget})
        for at in range(40):
            manifest = pod(f"p{at}", cpu=f"{rng.choice([300, 700, 1000])}m", priority=rng.randrange(4))
            manifest["metadata"]["labels"] = {"app": rng.choice(["kept", "free"])}
            cluster.apply(manifest)
            cluster.run_until(cluster.now_s + rng.choice([0, 2]))
        assert any(b'"Preempted"' in line for line in cluster.events())
        return cluster.digest()

    fast = story()
    monkeypatch.setattr("skep.arena.scheduler.placing.Placer.is_local", lambda _self, _cls: False)
    assert story() == fast
