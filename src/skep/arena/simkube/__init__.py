"""The `simkube` driver: the same step on SimKube, on a real Kubernetes cluster, in real time."""

from skep.arena.simkube.driver import SimKubeDriver, SimKubeOptions

__all__ = ["SimKubeDriver", "SimKubeOptions"]
