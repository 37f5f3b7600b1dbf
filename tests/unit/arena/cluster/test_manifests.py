import pytest

from skep.arena.manifests import parse
from skep.arena.objects import Deployment, Inert, Job, Node, Pod
from skep.errors.arena import InvalidManifest, InvalidQuantity, UnknownKind


def pod(**spec):
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], **spec}}


def test_requests_default_to_limits_and_scoring_to_its_own_defaults():
    containers = [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]
    found = parse(pod(containers=containers))
    assert isinstance(found, Pod)
    assert found.template.requests == {"cpu": 1000}
    assert found.template.nonzero_cpu == 1100
    assert found.template.nonzero_memory == 2 * 200 * 1024**2


def test_a_node_has_a_hostname_label_and_a_pod_limit():
    node = parse({"kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}})
    assert isinstance(node, Node)
    assert node.labels == {"kubernetes.io/hostname": "n"}
    assert node.allocatable == {"cpu": 2000, "pods": 110}


def test_defaults_of_a_deployment_and_a_job_are_those_of_the_api():
    template = pod()["spec"]
    deployment = parse(
        {
            "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {}}, "template": {"spec": template}},
        }
    )
    assert isinstance(deployment, Deployment)
    assert (deployment.replicas, deployment.max_surge, deployment.max_unavailable) == (1, "25%", "25%")
    job = parse({"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": template}}})
    assert isinstance(job, Job)
    assert (job.parallelism, job.completions, job.backoff_limit) == (1, 1, 6)


def test_kinds_without_effect_are_kept_by_name():
    assert parse({"kind": "ConfigMap", "metadata": {"name": "c"}}) == Inert("ConfigMap", "default", "c")


@pytest.mark.parametrize("kind", [None, 7, "", "Deploymint", "DaemonSet"])
def test_an_unknown_kind_is_told(kind):
    with pytest.raises(UnknownKind):
        parse({"kind": kind, "metadata": {"name": "x"}})


@pytest.mark.parametrize(
    ("manifest", "where"),
    [
        ([], ""),
        ({"kind": "Pod", "metadata": {"name": "p"}, "spec": {}}, "Pod.spec.containers"),
        ({"kind": "Pod", "metadata": []}, "Pod.metadata"),
        ({"kind": "Pod", "metadata": {"name": 3}}, "Pod.metadata.name"),
        (pod(containers="c"), "Pod.spec.containers"),
        (pod(priority="high"), "Pod.spec.priority"),
        (pod(nodeSelector={"a": 1}), "Pod.spec.nodeSelector"),
        (pod(tolerations=[{"tolerationSeconds": "x"}]), "Pod.spec.tolerations[0].tolerationSeconds"),
        (pod(topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "z"}]), "Pod.spec.topologySpreadConstraints[0].maxSkew"),
        (pod(topologySpreadConstraints=[{"maxSkew": 1}]), "Pod.spec.topologySpreadConstraints[0].topologyKey"),
        (pod(containers=[{"name": "c", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]), "Pod.spec.containers[0].resources.requests.cpu"),
        ({"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": -1, "selector": {}, "template": pod()}}, "Deployment.spec.replicas"),
        ({"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": pod()}}, "Deployment.spec.selector"),
        ({"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"selector": {}, "template": pod(), "strategy": {"rollingUpdate": {"maxSurge": "x%"}}}}, "Deployment.spec.strategy.rollingUpdate.maxSurge"),
        ({"kind": "Node", "metadata": {}}, "Node.metadata.name"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_path(manifest, where):
    if "spec" in manifest and manifest["kind"] == "Deployment":
        manifest["spec"].setdefault("selector", None)
    with pytest.raises(InvalidManifest) as caught:
        parse(manifest)
    assert caught.value.where == where


@pytest.mark.parametrize("value", ["-1", "10Ei", "lots", None, {}])
def test_an_absurd_quantity_is_refused(value):
    with pytest.raises(InvalidQuantity):
        parse(pod(containers=[{"name": "c", "resources": {"requests": {"cpu": value}}}]))
