"""Nodes that come, go, are cordoned, drained, tainted, and stop answering."""

import pytest

from skep.arena.objects import Taint
from skep.errors.arena import ObjectNotFound


def up(make, **more):
    cluster = make.cluster(**more)
    cluster.apply(make.workload("Deployment"))
    cluster.run_idle()
    return cluster


def where(cluster):
    return sorted(str(cluster.node_of(pod)) for pod in cluster.pods() if not pod.deleting)


def test_a_new_node_takes_what_waited(make):
    cluster = make.cluster(nodes=1, cpu="1")
    cluster.apply(make.workload("Deployment", replicas=2, cpu="700m"))
    cluster.run_until(100)
    assert cluster.observe("default", "web").ready == 1
    cluster.apply(make.node("late", cpu="1"))
    cluster.run_until(120)
    assert cluster.observe("default", "web").ready == 2


def test_a_larger_node_takes_what_waited(make):
    cluster = make.cluster(nodes=1, cpu="1")
    cluster.apply(make.workload("Deployment", replicas=2, cpu="700m"))
    cluster.run_until(100)
    cluster.apply(make.node("n0", cpu="2"))
    cluster.run_until(120)
    assert cluster.observe("default", "web").ready == 2


def test_pods_of_a_removed_node_are_replaced_elsewhere(make):
    cluster = up(make)
    cluster.remove_node("n0")
    cluster.run_idle()
    assert where(cluster) == ["n1", "n1", "n1"]
    with pytest.raises(ObjectNotFound):
        cluster.node("n0")


def test_cordoned_nodes_keep_their_pods_and_get_no_more(make):
    cluster = up(make)
    before = where(cluster).count("n0")
    cluster.cordon("n0")
    cluster.apply(make.workload("Deployment", replicas=9))
    cluster.run_idle()
    assert where(cluster).count("n0") == before
    cluster.cordon("n0", cordoned=False)
    cluster.apply(make.workload("Deployment", replicas=15))
    cluster.run_idle()
    assert where(cluster).count("n0") > before


def test_uncordoning_lets_waiting_pods_in(make):
    cluster = make.cluster(nodes=1)
    cluster.cordon("n0")
    cluster.apply(make.pod())
    cluster.run_until(60)
    assert cluster.pod("default", "p").node < 0
    cluster.cordon("n0", cordoned=False)
    cluster.run_until(80)
    assert cluster.pod("default", "p").ready


def test_draining_moves_everything(make):
    cluster = up(make)
    cluster.drain("n0")
    cluster.run_idle()
    assert where(cluster) == ["n1", "n1", "n1"]


def test_a_node_that_stops_answering_loses_readiness_at_once_and_its_pods_after_300_s(make, kinds):
    cluster = up(make)
    held = where(cluster).count("n0")
    start = cluster.now_s
    cluster.set_node_ready("n0", ready=False)
    assert cluster.observe("default", "web").ready == 3 - held
    cluster.run_until(start + 299)
    assert where(cluster).count("n0") == held
    cluster.run_until(start + 320)
    assert where(cluster) == ["n1", "n1", "n1"]
    assert cluster.observe("default", "web").ready == 3


def test_a_node_that_comes_back_in_time_keeps_its_pods(make):
    cluster = up(make)
    before = where(cluster)
    cluster.set_node_ready("n0", ready=False)
    cluster.run_until(cluster.now_s + 200)
    cluster.set_node_ready("n0", ready=True)
    cluster.run_until(cluster.now_s + 1000)
    assert where(cluster) == before
    assert cluster.observe("default", "web").ready == 3


def test_pods_stay_terminating_on_a_dead_node_until_it_answers_or_goes(make):
    cluster = up(make)
    cluster.set_node_ready("n0", ready=False)
    cluster.run_until(cluster.now_s + 400)
    stuck = [pod for pod in cluster.pods() if pod.deleting]
    assert stuck
    cluster.set_node_ready("n0", ready=True)
    cluster.run_idle()
    assert not [pod for pod in cluster.pods() if pod.deleting]


@pytest.mark.parametrize(("seconds", "gone_after"), [(None, None), (60, 60)])
def test_tolerations_of_no_execute_say_how_long_a_pod_stays(make, seconds, gone_after):
    toleration = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
    if seconds is not None:
        toleration["tolerationSeconds"] = seconds
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod(tolerations=[toleration]))
    cluster.run_idle()
    start = cluster.now_s
    cluster.taint("n0", [Taint("k", "v", "NoExecute")])
    cluster.run_until(start + 59)
    assert len(cluster.pods()) == 1
    cluster.run_until(start + 1000)
    assert bool(cluster.pods()) == (gone_after is None)


def test_no_execute_without_a_toleration_evicts_at_once(make):
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod())
    cluster.run_idle()
    cluster.taint("n0", [Taint("k", "v", "NoExecute")])
    cluster.run_until(cluster.now_s + 2)
    assert not cluster.pods()


def test_no_schedule_leaves_running_pods_alone(make):
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod())
    cluster.run_idle()
    cluster.taint("n0", [Taint("k", "v", "NoSchedule")])
    cluster.run_until(cluster.now_s + 1000)
    assert cluster.pod("default", "p").ready


def test_labels_that_change_let_waiting_pods_in(make):
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod(nodeSelector={"disk": "ssd"}))
    cluster.run_until(60)
    cluster.apply(make.node("n0", labels={"disk": "ssd"}))
    cluster.run_until(80)
    assert cluster.pod("default", "p").ready
