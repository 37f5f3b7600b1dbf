"""Image pulls, starts, readiness, out-of-memory kills, crash loops, lifetimes, deletion."""

import itertools

import pytest

from skep.arena.profile import Profile
from skep.arena.state import Phase

EXACT = Profile(image_pull_jitter_s=0, pod_startup_jitter_s=0, image_pull_delay_s=3, pod_startup_delay_s=1)
HUNGRY = {"arena.skep/memory-used": "200Mi", "arena.skep/memory-used-after-s": "5"}


def test_an_image_is_pulled_once_per_node(make, kinds):
    cluster = make.cluster(nodes=1, profile=EXACT)
    cluster.apply(make.pod("a"))
    cluster.run_idle()
    cluster.apply(make.pod("b"))
    cluster.run_idle()
    assert [t for t, _, _ in kinds(cluster, "Started")] == [4, 5]


def test_an_image_that_the_node_lists_is_not_pulled(make, kinds):
    cluster = make.cluster(nodes=0, profile=EXACT)
    node = make.node("n")
    node["status"]["images"] = [{"names": ["img"], "sizeBytes": 5}]
    cluster.apply(node)
    cluster.apply(make.pod())
    cluster.run_idle()
    assert [t for t, _, _ in kinds(cluster, "Started")] == [1]


def test_jitter_is_seeded_and_stays_in_its_range(make, kinds):
    def starts(seed):
        cluster = make.cluster(
            nodes=1, seed=seed, profile=Profile(image_pull_delay_s=2, image_pull_jitter_s=1)
        )
        cluster.apply(make.workload("Deployment", replicas=20))
        cluster.run_idle()
        return [t for t, _, _ in kinds(cluster, "Started")]

    assert starts(1) == starts(1) != starts(2)
    assert all(2.5 <= t <= 4 for t in starts(1))


def test_lifecycle_params_of_simkube_are_milliseconds():
    profile = Profile.of_lifecycle_params({"imagePullDelay": 1500, "podStartupJitter": 250})
    assert (profile.image_pull_delay_s, profile.pod_startup_jitter_s) == (1.5, 0.25)


def test_readiness_waits_for_the_probes_initial_delay(make):
    cluster = make.cluster(nodes=1, profile=EXACT)
    manifest = make.pod()
    manifest["spec"]["containers"][0]["readinessProbe"] = {"initialDelaySeconds": 10}
    cluster.apply(manifest)
    cluster.run_until(13)
    assert (cluster.pod("default", "p").phase, cluster.pod("default", "p").ready) == (Phase.RUNNING, False)
    cluster.run_until(14)
    assert cluster.pod("default", "p").ready


def test_more_memory_than_the_limit_is_killed_and_crash_loops(make, kinds):
    cluster = make.cluster(profile=EXACT)
    cluster.apply(make.workload("Deployment", replicas=1, annotations=HUNGRY, limits={"memory": "100Mi"}))
    cluster.run_until(600)
    seen = cluster.observe("default", "web")
    assert seen.ready == 0
    assert seen.oom_killed == seen.restarts >= 4
    assert seen.reasons == {"CrashLoopBackOff": 1}
    killed = [t for t, _, _ in kinds(cluster, "OOMKilled")]
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(killed)]
    assert gaps[:5] == [6, 16, 26, 46, 86]


def test_memory_within_the_limit_is_left_alone(make):
    cluster = make.cluster()
    cluster.apply(make.workload("Deployment", replicas=1, annotations=HUNGRY, limits={"memory": "200Mi"}))
    cluster.run_until(600)
    assert cluster.observe("default", "web").restarts == 0


def test_restart_delays_end_at_five_minutes(make, kinds):
    cluster = make.cluster(profile=EXACT)
    cluster.apply(make.workload("Deployment", replicas=1, annotations=HUNGRY, limits={"memory": "100Mi"}))
    cluster.run_until(10_000)
    killed = [t for t, _, _ in kinds(cluster, "OOMKilled")]
    assert round(killed[-1] - killed[-2]) == 300 + 5 + 1


def test_a_long_good_run_forgives_earlier_crashes(make, kinds):
    cluster = make.cluster(profile=EXACT)
    notes = {"arena.skep/runs-s": "700", "arena.skep/exit-code": "1"}
    cluster.apply(make.workload("Deployment", replicas=1, annotations=notes))
    cluster.run_until(10_000)
    assert not kinds(cluster, "BackOff")
    assert cluster.observe("default", "web").restarts > 10


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, Phase.SUCCEEDED), ("Never", 3, Phase.FAILED), ("OnFailure", 0, Phase.SUCCEEDED)],
)
def test_the_restart_policy_decides_what_an_exit_means(make, policy, code, phase):
    cluster = make.cluster(nodes=1)
    notes = {"arena.skep/runs-s": "5", "arena.skep/exit-code": str(code)}
    cluster.apply(make.pod(annotations=notes, restartPolicy=policy))
    cluster.run_idle()
    pod = cluster.pod("default", "p")
    assert (pod.phase, pod.exit_code) == (phase, code)
    assert cluster.usage()[0].pods == 0


def test_a_lifetime_from_a_trace_ends_the_pod_and_its_controller_replaces_it(make, kinds):
    cluster = make.cluster()
    cluster.apply(make.workload("Deployment", replicas=1), lifetimes_s=[100, 50])
    cluster.run_until(170)
    ended = [t for t, _, _ in kinds(cluster, "Succeeded")]
    started = [t for t, _, _ in kinds(cluster, "Started")]
    assert [round(end - start, 6) for start, end in zip(started, ended, strict=False)] == [100, 50]
    assert cluster.observe("default", "web").ready == 1


def test_simkubes_lifetime_annotation_does_the_same(make):
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod(annotations={"simkube.io/lifetime-seconds": "30"}))
    cluster.run_idle()
    assert cluster.pod("default", "p").phase == Phase.SUCCEEDED


def test_deleting_waits_for_the_containers_to_stop(make):
    cluster = make.cluster(nodes=1, profile=Profile(termination_s=20))
    for name, grace in (("slow", 30), ("quick", 5)):
        cluster.apply(make.pod(name, terminationGracePeriodSeconds=grace))
    cluster.run_idle()
    start = cluster.now_s
    for name in ("slow", "quick"):
        cluster.delete(make.pod(name))
    cluster.run_until(start + 5)
    assert [pod.name for pod in cluster.pods()] == ["slow"]
    assert cluster.usage()[0].pods == 1
    cluster.run_until(start + 20)
    assert not cluster.pods()


def test_a_gated_pod_waits_until_its_gates_are_gone(make):
    cluster = make.cluster(nodes=1)
    cluster.apply(make.pod(schedulingGates=[{"name": "quota"}]))
    cluster.run_until(60)
    assert cluster.pod("default", "p").reason == "SchedulingGated"
    assert cluster.pod("default", "p").attempts == 0
    cluster.apply(make.pod())
    cluster.run_until(120)
    assert cluster.pod("default", "p").ready


def test_finished_pods_are_kept_to_a_bound(make, monkeypatch):
    monkeypatch.setattr("skep.arena.cluster.TERMINATED_PODS_MAX", 10)
    cluster = make.cluster(nodes=1)
    for at in range(30):
        cluster.apply(make.pod(f"p{at}", annotations={"simkube.io/lifetime-seconds": "1"}))
        cluster.run_idle()
    assert [pod.name for pod in cluster.pods()] == [f"p{at}" for at in range(20, 30)]
