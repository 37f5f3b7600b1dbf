"""A fake Kubernetes API server on real HTTP, and a fake SimKube on it; held against real ones where there are any."""

from skep.testkit.kube.faults import Call, Faults
from skep.testkit.kube.rbac import ADMIN_TOKEN, Rbac, Rule
from skep.testkit.kube.resources import SIMULATIONS, Resource
from skep.testkit.kube.server import FakeKubeApi
from skep.testkit.kube.simkube import FakePods, FakeSimKube
from skep.testkit.kube.status import ApiError
from skep.testkit.kube.store import KubeStore

__all__ = [
    "ADMIN_TOKEN",
    "SIMULATIONS",
    "ApiError",
    "Call",
    "FakeKubeApi",
    "FakePods",
    "FakeSimKube",
    "Faults",
    "KubeStore",
    "Rbac",
    "Resource",
    "Rule",
]
