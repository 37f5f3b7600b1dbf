"""Which resources the fake API server serves: how they are named, scoped, and whether status is apart."""

from typing import Final, NamedTuple


class Resource(NamedTuple):
    """One resource as discovery tells it. `group` is "" for the core."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True
    has_status: bool = False
    is_custom: bool = False

    @property
    def api_version(self) -> str:
        """`v1` or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()


BUILT_IN: Final = (
    Resource("", "v1", "namespaces", "Namespace", is_namespaced=False, has_status=True),
    Resource("", "v1", "nodes", "Node", is_namespaced=False, has_status=True),
    Resource("", "v1", "pods", "Pod", has_status=True),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "services", "Service", has_status=True),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "events", "Event"),
    Resource("apps", "v1", "deployments", "Deployment", has_status=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", has_status=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", has_status=True),
    Resource("batch", "v1", "jobs", "Job", has_status=True),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
)
SIMULATIONS: Final = Resource(
    "simkube.io", "v1", "simulations", "Simulation", is_namespaced=False, has_status=True, is_custom=True
)
