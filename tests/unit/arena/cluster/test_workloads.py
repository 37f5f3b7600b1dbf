"""Deployments, replica sets, stateful sets and jobs, on virtual time."""

import pytest

from skep.errors.arena import ObjectNotFound


def replica_sets(cluster):
    return [w for w in cluster.cluster.workloads.values() if type(w.spec).__name__ == "ReplicaSet"]


def counts(cluster, name="web"):
    seen = cluster.observe("default", name)
    return seen.ready, seen.pending, seen.total


def test_a_deployment_comes_up(make):
    cluster = make.cluster()
    cluster.apply(make.workload("Deployment"))
    assert counts(cluster) == (0, 3, 3)
    assert cluster.run_idle()
    assert counts(cluster) == (3, 0, 3)


def test_pods_that_do_not_fit_are_pending_with_the_schedulers_reason(make):
    cluster = make.cluster(nodes=1, cpu="1")
    cluster.apply(make.workload("Deployment", cpu="600m", memory="1Gi"))
    cluster.run_until(60)
    seen = cluster.observe("default", "web")
    assert (seen.ready, seen.pending, seen.total) == (1, 2, 3)
    assert seen.reasons == {"Insufficient cpu": 2}


def test_scaling_up_and_down_follows_the_declaration(make):
    cluster = make.cluster()
    for replicas in (3, 10, 1, 0, 4):
        cluster.apply(make.workload("Deployment", replicas=replicas))
        cluster.run_idle()
        assert counts(cluster) == (replicas, 0, replicas)


def test_a_rolling_update_stays_within_surge_and_unavailable(make):
    cluster = make.cluster(cpu="64", memory="64Gi")
    spec = {"strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}}
    cluster.apply(make.workload("Deployment", replicas=10, spec=spec))
    cluster.run_idle()
    cluster.apply(make.workload("Deployment", replicas=10, spec=spec, cpu="200m"))
    start, seen = cluster.now_s, set()
    for step in range(1, 400):
        cluster.run_until(start + step / 4)
        ready, _, total = counts(cluster)
        assert ready >= 9
        assert total <= 12
        seen.add(total)
    assert counts(cluster) == (10, 0, 10)
    assert len(seen) > 1
    assert {w.spec.replicas for w in replica_sets(cluster)} == {0, 10}


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), ("0%", "0%"), ("100%", 0), (1, "50%")])
def test_every_allowance_leads_to_the_new_revision(make, surge, unavailable):
    cluster = make.cluster(cpu="64")
    spec = {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}
    cluster.apply(make.workload("Deployment", replicas=4, spec=spec))
    cluster.run_idle()
    cluster.apply(make.workload("Deployment", replicas=4, spec=spec, cpu="200m"))
    cluster.run_idle()
    assert {w.spec.replicas: w.active for w in replica_sets(cluster)} == {0: 0, 4: 4}


def test_a_rollout_that_cannot_fit_keeps_the_old_pods(make):
    cluster = make.cluster(nodes=1, cpu="2")
    cluster.apply(make.workload("Deployment", replicas=4, cpu="400m"))
    cluster.run_idle()
    cluster.apply(make.workload("Deployment", replicas=4, cpu="3"))
    cluster.run_until(3600)
    assert cluster.observe("default", "web").ready == 3


def test_rolling_back_uses_the_old_replica_set_again(make):
    cluster = make.cluster(cpu="64")
    for cpu in ("100m", "200m", "100m"):
        cluster.apply(make.workload("Deployment", cpu=cpu))
        cluster.run_idle()
    assert len(replica_sets(cluster)) == 2
    assert sorted(w.spec.replicas for w in replica_sets(cluster)) == [0, 3]


def test_recreate_stops_everything_first(make, kinds):
    cluster = make.cluster(cpu="64")
    spec = {"strategy": {"type": "Recreate"}}
    cluster.apply(make.workload("Deployment", spec=spec))
    cluster.run_idle()
    before = cluster.now_s
    cluster.apply(make.workload("Deployment", spec=spec, cpu="200m"))
    cluster.run_idle()
    assert counts(cluster) == (3, 0, 3)
    gone = [t for t, _, _ in kinds(cluster, "Deleted") if t > before]
    made = [t for t, _, _ in kinds(cluster, "Created") if t > before]
    assert max(gone) <= min(made)


def test_a_paused_deployment_does_not_roll(make):
    cluster = make.cluster(cpu="64")
    cluster.apply(make.workload("Deployment"))
    cluster.run_idle()
    cluster.apply(make.workload("Deployment", spec={"paused": True}, cpu="200m"))
    cluster.run_idle()
    assert len(replica_sets(cluster)) == 1
    cluster.apply(make.workload("Deployment", cpu="200m"))
    cluster.run_idle()
    assert sorted(w.spec.replicas for w in replica_sets(cluster)) == [0, 3]


def test_scaling_in_the_middle_of_a_rollout_ends_with_what_was_asked_last(make):
    cluster = make.cluster(cpu="64")
    cluster.apply(make.workload("Deployment", replicas=10))
    cluster.run_idle()
    cluster.apply(make.workload("Deployment", replicas=10, cpu="200m"))
    cluster.run_until(cluster.now_s + 2)
    cluster.apply(make.workload("Deployment", replicas=20, cpu="200m"))
    cluster.run_idle()
    assert counts(cluster) == (20, 0, 20)
    assert sorted(w.spec.replicas for w in replica_sets(cluster)) == [0, 20]


def test_old_revisions_are_kept_to_the_history_limit(make):
    cluster = make.cluster(cpu="64")
    for at in range(6):
        cluster.apply(make.workload("Deployment", spec={"revisionHistoryLimit": 2}, cpu=f"{100 + at}m"))
        cluster.run_idle()
    assert len(replica_sets(cluster)) == 3


def test_min_ready_seconds_hold_a_rollout_back(make):
    took = []
    for seconds in (0, 30):
        cluster = make.cluster(cpu="64")
        for cpu in ("100m", "200m"):
            cluster.apply(make.workload("Deployment", spec={"minReadySeconds": seconds}, cpu=cpu))
            start = cluster.now_s
            cluster.run_idle()
        took.append(cluster.now_s - start)
    assert took[1] > took[0] + 60


def test_a_replica_set_replaces_what_is_deleted(make):
    cluster = make.cluster()
    cluster.apply(make.workload("ReplicaSet"))
    cluster.run_idle()
    first = cluster.pods()[0]
    cluster.delete(make.pod(first.name))
    cluster.run_idle()
    assert counts(cluster) == (3, 0, 3)
    assert first.name not in {pod.name for pod in cluster.pods()}


def test_scale_down_takes_pending_pods_first_then_the_cheapest_then_the_crowded(make):
    cluster = make.cluster(nodes=1, cpu="1")
    cluster.apply(make.workload("ReplicaSet", cpu="400m"))
    cluster.run_until(30)
    waiting = next(pod.name for pod in cluster.pods() if pod.node < 0)
    cluster.apply(make.workload("ReplicaSet", replicas=2, cpu="400m"))
    assert waiting not in {pod.name for pod in cluster.pods()}


def test_deleting_a_deployment_deletes_its_pods(make):
    cluster = make.cluster()
    manifest = make.workload("Deployment")
    cluster.apply(manifest)
    cluster.run_idle()
    cluster.delete(manifest)
    cluster.run_idle()
    assert cluster.pods() == []
    assert not cluster.cluster.workloads
    with pytest.raises(ObjectNotFound):
        cluster.observe("default", "web")
    with pytest.raises(ObjectNotFound):
        cluster.delete(manifest)


def test_a_stateful_set_starts_in_order_and_shrinks_from_the_top(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.workload("StatefulSet"))
    cluster.run_idle()
    happened = [(kind, name) for _, kind, name in kinds(cluster, "Created", "Started")]
    assert happened == [(kind, f"default/web-{at}") for at in range(3) for kind in ("Created", "Started")]
    cluster.apply(make.workload("StatefulSet", replicas=1))
    cluster.run_idle()
    assert [name for _, _, name in kinds(cluster, "Deleted")] == ["default/web-2", "default/web-1"]
    assert counts(cluster) == (1, 0, 1)


def test_a_parallel_stateful_set_starts_at_once(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.workload("StatefulSet", spec={"podManagementPolicy": "Parallel"}))
    assert [t for t, _, _ in kinds(cluster, "Created")] == [0, 0, 0]


def test_a_stateful_set_that_cannot_place_one_pod_waits_there(make):
    cluster = make.cluster(nodes=1, cpu="1")
    cluster.apply(make.workload("StatefulSet", cpu="600m"))
    cluster.run_until(600)
    assert [pod.name for pod in cluster.pods()] == ["web-0", "web-1"]


def test_a_stateful_set_updates_from_the_highest_ordinal_down_to_the_partition(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.workload("StatefulSet", replicas=4))
    cluster.run_idle()
    spec = {"updateStrategy": {"rollingUpdate": {"partition": 2}}}
    cluster.apply(make.workload("StatefulSet", replicas=4, spec=spec, cpu="200m"))
    cluster.run_idle()
    assert [name for _, _, name in kinds(cluster, "Deleted")] == ["default/web-3", "default/web-2"]
    requests = {pod.name: cluster.cluster.classes[pod.cls].template.requests["cpu"] for pod in cluster.pods()}
    assert requests == {"web-0": 100, "web-1": 100, "web-2": 200, "web-3": 200}
    cluster.delete(make.pod("web-0"))
    cluster.run_idle()
    again = cluster.pod("default", "web-0")
    assert cluster.cluster.classes[again.cls].template.requests["cpu"] == 100


def test_a_job_runs_to_completion(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.job(spec={"parallelism": 2, "completions": 5}))
    cluster.run_idle()
    assert len(kinds(cluster, "Succeeded")) == 5
    assert [name for _, _, name in kinds(cluster, "JobComplete")] == ["default/job"]


def test_no_more_pods_of_a_job_run_than_its_parallelism(make):
    cluster = make.cluster()
    cluster.apply(make.job(spec={"parallelism": 2, "completions": 5}))
    for at in range(1, 100):
        cluster.run_until(at / 2)
        assert sum(pod.is_active for pod in cluster.pods()) <= 2


def test_an_indexed_job_completes_every_index_once(make):
    cluster = make.cluster()
    cluster.apply(make.job(spec={"parallelism": 3, "completions": 4, "completionMode": "Indexed"}))
    cluster.run_idle()
    assert sorted(pod.ordinal for pod in cluster.pods()) == [0, 1, 2, 3]


def test_a_failing_job_backs_off_and_gives_up(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.job(exit_code=1, spec={"backoffLimit": 2}))
    assert cluster.run_idle()
    failed = [t for t, _, _ in kinds(cluster, "Failed")]
    assert len(failed) == 3
    created = [t for t, _, _ in kinds(cluster, "Created")]
    assert [round(later - earlier) for earlier, later in zip(failed, created[1:], strict=False)] == [10, 20]
    assert len(kinds(cluster, "JobFailed")) == 1


def test_restart_policy_on_failure_counts_restarts_against_the_limit(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.job(exit_code=1, spec={"backoffLimit": 2}, restartPolicy="OnFailure"))
    assert cluster.run_idle()
    assert len(kinds(cluster, "Created")) == 1
    assert len(kinds(cluster, "JobFailed")) == 1


def test_a_deadline_ends_a_job(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.job(runs_s=1000, spec={"activeDeadlineSeconds": 60}))
    cluster.run_idle()
    assert [t for t, _, _ in kinds(cluster, "JobFailed")] == [60]


def test_a_finished_job_goes_after_its_time_to_live(make):
    cluster = make.cluster()
    cluster.apply(make.job(spec={"ttlSecondsAfterFinished": 100}))
    cluster.run_until(50)
    assert cluster.cluster.workloads
    cluster.run_idle()
    assert not cluster.cluster.workloads
    assert not cluster.pods()


def test_a_suspended_job_runs_nothing_until_it_is_resumed(make):
    cluster = make.cluster()
    cluster.apply(make.job(spec={"suspend": True}))
    cluster.run_until(100)
    assert not cluster.pods()
    cluster.apply(make.job(spec={"suspend": False}))
    cluster.run_idle()
    assert [pod.phase.name for pod in cluster.pods()] == ["SUCCEEDED"]


def test_an_object_whose_controller_is_here_is_left_to_it(make):
    cluster = make.cluster()
    cluster.apply(make.workload("Deployment", replicas=2))
    owned = make.workload("ReplicaSet", "web-abc", replicas=2)
    owned["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "web", "controller": True}]
    cluster.apply(owned)
    cluster.run_idle()
    assert len(cluster.pods()) == 2
    owned["metadata"]["ownerReferences"][0]["name"] = "elsewhere"
    cluster.apply(owned)
    cluster.run_idle()
    assert len(cluster.pods()) == 4
