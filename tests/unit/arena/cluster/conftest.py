"""Manifests for the tests of the simulated cluster."""

import pytest

from skep.arena.embedded import EmbeddedCluster
from skep.arena.profile import Profile


class Make:
    """Small manifests by keyword."""

    @staticmethod
    def node(name="n", cpu="4", memory="8Gi", pods="110", labels=None, **spec):
        room = {"cpu": cpu, "memory": memory, "pods": pods}
        metadata = {"name": name, "labels": labels or {}}
        return {"kind": "Node", "metadata": metadata, "spec": spec, "status": {"allocatable": room}}

    @staticmethod
    def template(cpu="100m", memory="64Mi", labels=None, annotations=None, limits=None, **spec):
        resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": limits or {}}
        return {
            "metadata": {"labels": labels or {"app": "web"}, "annotations": annotations or {}},
            "spec": {"containers": [{"name": "c", "image": "img", "resources": resources}], **spec},
        }

    def pod(self, name="p", **more):
        made = self.template(**more)
        return {"kind": "Pod", **made, "metadata": made["metadata"] | {"name": name}}

    def workload(self, kind, name="web", replicas=3, spec=None, **template):
        return {
            "kind": kind,
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": self.template(**template),
                **(spec or {}),
            },
        }

    def job(self, name="job", runs_s=5, exit_code=0, spec=None, annotations=None, **template):
        notes = {"arena.skep/runs-s": str(runs_s), "arena.skep/exit-code": str(exit_code)}
        made = self.template(annotations=notes | (annotations or {}), **template)
        return {"kind": "Job", "metadata": {"name": name}, "spec": {"template": made, **(spec or {})}}

    def cluster(self, nodes=2, seed=0, profile=None, **node):
        return EmbeddedCluster(
            [self.node(f"n{at}", **node) for at in range(nodes)], seed, profile or Profile()
        )


@pytest.fixture
def make():
    """Return the maker of manifests."""
    return Make()


@pytest.fixture
def kinds():
    """Return a function that lists what kinds of things happened, with their subjects."""
    import json

    return lambda cluster, *wanted: [
        (float(line["t"]), line["kind"], line["object"])
        for line in map(json.loads, cluster.events())
        if not wanted or line["kind"] in wanted
    ]
