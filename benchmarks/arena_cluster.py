"""How fast the embedded cluster is: `python benchmarks/arena_cluster.py [--pods N] [--nodes N]`.

kube-scheduler's own CI floor for its SchedulingBasic benchmark on 5,000 nodes is 680 pods a second
(test/integration/scheduler_perf); 20 times that is 13,600. CPU seconds are this process's own: what one core gives
where others share the machine.
"""

import argparse
import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from skep.arena.embedded import EmbeddedCluster
from skep.arena.manifests import parse
from skep.arena.profile import Profile

FLOOR = 13_600


def node(number: int) -> dict[str, Any]:
    room = {"cpu": "32", "memory": "128Gi", "pods": "110"}
    labels = {"topology.kubernetes.io/zone": f"zone-{number % 3}"}
    return {
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "labels": labels},
        "status": {"allocatable": room},
    }


def pod_spec(**more: Any) -> dict[str, Any]:
    requests = {"cpu": "100m", "memory": "500Mi"}
    return {"containers": [{"name": "pause", "image": "pause", "resources": {"requests": requests}}], **more}


def bare(number: int) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": pod_spec()}


def deployment(replicas: int, **more: Any) -> dict[str, Any]:
    labels = {"app": "web"}
    return {
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(**more)},
        },
    }


SPREAD = {
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }
    ]
}
ANTI = {
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
            ]
        }
    }
}


def measure(name: str, manifests: list[dict[str, Any]], nodes: int, pods: int) -> dict[str, Any]:
    """Return pods bound per second, from the first manifest (parsed here) to the last binding."""
    parsed = [parse(node(number)) for number in range(nodes)]
    cluster = EmbeddedCluster(parsed, seed=1, profile=Profile())  # type: ignore[arg-type]
    started, cpu_started = time.perf_counter(), time.process_time()
    for manifest in manifests:
        cluster.apply(manifest)
    cluster.run_until(0)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    bound = sum(pod.node >= 0 for pod in cluster.pods())
    run_started = time.perf_counter()
    cluster.run_until(60)
    ran_s = time.perf_counter() - run_started
    return {
        "case": name,
        "nodes": nodes,
        "pods": pods,
        "bound": bound,
        "pods_per_s": round(bound / took_s),
        "pods_per_cpu_s": round(bound / cpu_s),
        "times_floor": round(bound / cpu_s / 680, 1),
        "to_ready_s": round(ran_s, 3),
    }


def measure_stream(events: int, nodes: int = 100) -> dict[str, Any]:
    """Stream pods in and out, one event a tenth of a second; memory is to stay where it is."""
    cluster = EmbeddedCluster([parse(node(number)) for number in range(nodes)], seed=1)  # type: ignore[arg-type]
    alive: deque[dict[str, Any]] = deque()
    samples: list[int] = []
    started = time.perf_counter()
    for number in range(events):
        cluster.run_until(number / 10)
        if len(alive) < 1000 or number % 2:
            manifest = bare(number)
            manifest["metadata"]["labels"] = {"job": str(number % 5000)}
            alive.append(manifest)
            cluster.apply(manifest)
        else:
            cluster.delete(alive.popleft())
        if number % (events // 10) == events // 10 - 1:
            samples.append(rss_mib())
    took_s = time.perf_counter() - started
    return {
        "case": "a stream of pods",
        "events": events,
        "history": len(cluster.history),
        "seconds": round(took_s, 1),
        "events_per_s": round(events / took_s),
        "rss_mib_by_tenth": samples,
    }


def rss_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def measure_preemption(nodes: int, pods: int) -> dict[str, Any]:
    """Fill a cluster with pods of low priority, then let pods of high priority push in."""

    def filled(name: str, replicas: int, priority: int) -> dict[str, Any]:
        made = deployment(replicas, priority=priority)
        made["metadata"]["name"] = name
        made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = {
            "app": name
        }
        made["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "8"}
        return made

    cluster = EmbeddedCluster([parse(node(number)) for number in range(nodes)], seed=1)  # type: ignore[arg-type]
    cluster.apply(filled("low", nodes * 4, 0))
    cluster.run_until(30)
    started = time.process_time()
    cluster.apply(filled("high", pods, 100))
    cluster.run_until(60)
    cpu_s = time.process_time() - started
    ready = cluster.observe("default", "high").ready
    return {"case": "preemption", "nodes": nodes, "ready": ready, "pods_per_cpu_s": round(ready / cpu_s)}


def measure_small(pods: int) -> dict[str, Any]:
    """Make a cluster of two nodes, bring a deployment up on it, and look at it."""
    nodes = [parse(node(number)) for number in range(2)]
    manifest, profile, rounds = deployment(pods), Profile(explains=False), 500
    started = time.perf_counter()
    for seed in range(rounds):
        cluster = EmbeddedCluster(nodes, seed, profile)  # type: ignore[arg-type]
        cluster.apply(manifest)
        cluster.run_until(60)
        cluster.observe("default", "web")
    return {
        "case": f"a small cluster, {pods} pods",
        "us": round((time.perf_counter() - started) / rounds * 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=0, help="also stream so many events")
    options = parser.parse_args()
    pods, nodes = options.pods, options.nodes
    cases = [
        ("pods from their own manifests", [bare(number) for number in range(pods)]),
        ("one deployment (default spread)", [deployment(pods)]),
        ("one deployment, zone spread required", [deployment(pods, **SPREAD)]),
        ("one deployment, one per node (anti-affinity)", [deployment(min(pods, nodes), **ANTI)]),
    ]
    rows = [measure(name, manifests, nodes, pods) for name, manifests in cases]
    others = [measure_small(3), measure_small(10), measure_preemption(500, 500)]
    if options.events:
        others.append(measure_stream(options.events))
    rows += others if options.json else []
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'case':46} {'bound':>7} {'pods/s':>8} {'per CPU s':>10} {'x 680/s':>8} {'to ready, s':>12}")
    for row in rows:
        print(
            f"{row['case']:46} {row['bound']:>7} {row['pods_per_s']:>8} {row['pods_per_cpu_s']:>10}"
            f" {row['times_floor']:>8} {row['to_ready_s']:>12}"
        )
    for row in others:
        print(", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
