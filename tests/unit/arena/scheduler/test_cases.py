"""Placements that the Kubernetes documentation implies, as data (`cases.toml`), each explained."""

import tomllib
from pathlib import Path

import pytest

from skep.arena.embedded import EmbeddedCluster
from skep.arena.profile import Profile

CASES = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())["case"]
ALL_SCORES = {"NodeResourcesFit", "NodeResourcesBalancedAllocation", "ImageLocality", "TaintToleration"}


def node(line):
    name, *tokens = line.split()
    labels, taints, images, room, spec, ready = {}, [], [], {}, {}, "True"
    for token in tokens:
        kind, _, rest = token.partition(":")
        key, _, value = token.partition("=")
        if kind == "label":
            label, _, text = rest.partition("=")
            labels[label] = text
        elif kind == "taint":
            pair, _, effect = rest.rpartition(":")
            label, _, text = pair.partition("=")
            taints.append({"key": label, "value": text, "effect": effect})
        elif kind == "image":
            image, _, size = rest.rpartition("=")
            images.append({"names": [image], "sizeBytes": int(size) * 1024 * 1024})
        elif token == "cordoned":
            spec["unschedulable"] = True
        elif token == "notready":
            ready = "False"
        elif key == "zone":
            labels["topology.kubernetes.io/zone"] = value
        else:
            room[{"gpu": "nvidia.com/gpu"}.get(key, key)] = value
    status = {"allocatable": room, "images": images, "conditions": [{"type": "Ready", "status": ready}]}
    metadata = {"name": name, "labels": labels}
    return {"kind": "Node", "metadata": metadata, "spec": spec | {"taints": taints}, "status": status}


def pod(name, tokens, on=None, more=None):
    labels, requests, namespace = {}, {}, "default"
    container = {"name": "c", "resources": {"requests": requests}}
    spec = {"containers": [container]}
    for token in tokens:
        kind, _, rest = token.partition(":")
        key, _, value = token.partition("=")
        if kind == "label":
            label, _, text = rest.partition("=")
            labels[label] = text
        elif kind == "anti":
            pair, _, topology = rest.partition("@")
            label, _, text = pair.partition("=")
            term = {"topologyKey": topology, "labelSelector": {"matchLabels": {label: text}}}
            spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        elif key == "ns":
            namespace = value
        elif key == "priority":
            spec["priority"] = int(value)
        elif key == "class":
            spec["priorityClassName"] = value
        elif key == "port":
            container["ports"] = [{"containerPort": int(value), "hostPort": int(value)}]
        elif key == "image":
            container["image"] = value
        else:
            requests[{"gpu": "nvidia.com/gpu"}.get(key, key)] = value
    if on is not None:
        spec["nodeName"] = on
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"kind": "Pod", "metadata": metadata, "spec": spec | (more or {})}


@pytest.mark.parametrize("vector", [False, True], ids=["lists", "arrays"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_placement_is_what_the_documentation_implies_and_is_explained(case, vector):
    profile = Profile(vector_from=1 if vector else 1000)
    cluster = EmbeddedCluster([node(line) for line in case["nodes"]], seed=3, profile=profile)
    for manifest in case.get("objects", []):
        cluster.apply(manifest)
    for line in case.get("existing", []):
        name, on, *tokens = line.split()
        cluster.apply(pod(name, tokens, on))
    cluster.run_until(60)
    cluster.apply(pod("new", case["pod"].split(), more=case.get("spec")))
    cluster.run_until(60)
    decision = cluster.explain("default/new")
    expected = case["expect"] if isinstance(case["expect"], list) else [case["expect"] or None]
    assert decision.node in expected
    for name, plugin in case.get("why", {}).items():
        assert decision.rejections[name].plugin == plugin
    if "message" in case:
        assert decision.message == case["message"]
    assert [victim.rpartition("/")[2] for victim in decision.victims] == case.get("victims", [])
    judged = set(decision.rejections) | set(decision.scores) | {decision.node} - {None}
    assert judged == {line.split()[0] for line in case["nodes"]}
    assert all(set(parts) >= ALL_SCORES for parts in decision.scores.values())
    assert all(rejection.reasons for rejection in decision.rejections.values())
    cluster.run_until(120)
    landed = cluster.node_of(cluster.pod("default", "new"))
    assert landed in expected


def test_the_table_is_large_and_names_its_sources():
    assert len(CASES) >= 60
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert all(case["source"] for case in CASES)
