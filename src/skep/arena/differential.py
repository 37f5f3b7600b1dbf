"""The same nodes and pods before a real API server's scheduler and before ours: do they agree?

The real cluster is left as it was found: nodes of our own (no kubelet behind them, kept apart by a label and a taint),
namespaces and priority classes of our own, all named after the run, all deleted at the end. A case takes seconds, less than
the forty after which a node without heartbeats is taken for lost.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from skep.arena.driver import StopToken
from skep.arena.embedded import EmbeddedCluster
from skep.arena.scheduler.explain import Decision
from skep.arena.simkube.api import KubeApi, KubeError
from skep.errors.arena import SimulationFailed

Manifest = dict[str, Any]

RUN_LABEL: Final = "arena.skep/run"
NODE_READY_S_MAX: Final = 30.0
SCHEDULED_S_MAX: Final = 20.0
ACCOUNT_S_MAX: Final = 5.0
POLL_S: Final = 0.1
NOT_FOUND: Final = 404
PATHS: Final = {
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
VERSIONS: Final = {"PriorityClass": "scheduling.k8s.io/v1", "PodDisruptionBudget": "policy/v1"}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What stands there (nodes, objects, pods that are bound by name), and the pod to be placed."""

    nodes: tuple[Manifest, ...]
    objects: tuple[Manifest, ...] = ()
    existing: tuple[Manifest, ...] = ()
    pod: Manifest = {}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What either scheduler did. They agree when the real one chose one of our best nodes, or both chose none."""

    simulated: Decision
    real_node: str | None
    real_message: str

    @property
    def agrees(self) -> bool:
        """True when the real decision is one that ours could have been."""
        if self.simulated.outcome != "scheduled" or self.real_node is None:
            return (self.simulated.outcome == "scheduled") == (self.real_node is not None)
        return self.real_node in best_nodes(self.simulated)


def best_nodes(decision: Decision) -> set[str]:
    """Return the nodes among which a decision's tie was drawn."""
    if decision.feasible < 2:  # noqa: PLR2004 - one needs no score
        return {decision.node} - {None}  # type: ignore[return-value]
    best = max(decision.total(name) for name in decision.scores)
    return {name for name in decision.scores if decision.total(name) == best}


def staged(scene: Scene, run: str) -> Scene:
    """Return the scene in names of the run's own, its pods kept on its nodes by selector and toleration."""
    return Scene(
        nodes=tuple(_staged_node(node, run) for node in scene.nodes),
        objects=(*(_staged_object(item, run) for item in scene.objects), *_priorities(scene, run)),
        existing=tuple(_staged_pod(pod, run) for pod in scene.existing),
        pod=_staged_pod(scene.pod, run),
    )


def _staged_node(node: Manifest, run: str) -> Manifest:
    made = copy.deepcopy(node)
    metadata = made["metadata"]
    metadata["name"] = f"{run}-{metadata['name']}"
    labels = metadata.setdefault("labels", {})
    labels |= {RUN_LABEL: run, "kubernetes.io/hostname": metadata["name"]}
    taints = made.setdefault("spec", {}).setdefault("taints", [])
    taints.append({"key": RUN_LABEL, "value": run, "effect": "NoSchedule"})
    return made


def _space(name: str | None, run: str) -> str:
    return f"{run}-{name or 'default'}"


def _staged_object(item: Manifest, run: str) -> Manifest:
    made = copy.deepcopy(item)
    metadata = made["metadata"]
    if item["kind"] == "PriorityClass":
        metadata["name"] = f"{run}-{metadata['name']}"
        made.pop("globalDefault", None)
    else:
        metadata["namespace"] = _space(metadata.get("namespace"), run)
    return made


def _priorities(scene: Scene, run: str) -> list[Manifest]:
    """Return the classes that stand for bare priorities, which an API server does not take."""
    values = {
        pod["spec"]["priority"] for pod in (*scene.existing, scene.pod) if "priority" in pod.get("spec", {})
    }
    return [
        {"kind": "PriorityClass", "metadata": {"name": f"{run}-p{value}"}, "value": value}
        for value in sorted(values)
    ]


def _staged_pod(pod: Manifest, run: str) -> Manifest:
    made = copy.deepcopy(pod)
    metadata, spec = made["metadata"], made["spec"]
    metadata["namespace"] = _space(metadata.get("namespace"), run)
    spec["nodeSelector"] = {**spec.get("nodeSelector", {}), RUN_LABEL: run}
    toleration = {"key": RUN_LABEL, "operator": "Equal", "value": run, "effect": "NoSchedule"}
    spec["tolerations"] = [*spec.get("tolerations", []), toleration]
    spec["automountServiceAccountToken"] = False
    if "nodeName" in spec:
        spec["nodeName"] = f"{run}-{spec['nodeName']}"
    if "priority" in spec:
        spec["priorityClassName"] = f"{run}-p{spec.pop('priority')}"
    elif "priorityClassName" in spec:
        spec["priorityClassName"] = f"{run}-{spec['priorityClassName']}"
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        container.setdefault("image", "registry.k8s.io/pause:3.10")
    _map_names(spec.get("affinity", {}), run)
    return made


def _map_names(value: Any, run: str) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("namespaces"), list):
            value["namespaces"] = [_space(name, run) for name in value["namespaces"]]
        for field in value.get("matchFields") or ():
            field["values"] = [f"{run}-{name}" for name in field["values"]]
        for item in value.values():
            _map_names(item, run)
    elif isinstance(value, list):
        for item in value:
            _map_names(item, run)


class RealScheduler:
    """A real API server with a scheduler behind it, for one run."""

    def __init__(self, api: KubeApi, run: str, stop: StopToken | None = None) -> None:
        self._api, self._run, self._stop = api, run, stop or StopToken()
        self._made: list[str] = []

    def _call(
        self, verb: str, path: str, method: str, body: Any = None, content: str = "application/json"
    ) -> Any:
        return self._api.call(verb, path, method=method, stop=self._stop, body=body, content_type=content)

    def _create(self, manifest: Manifest) -> None:
        kind, metadata = manifest["kind"], manifest["metadata"]
        body = {
            "apiVersion": VERSIONS.get(kind, "v1"),
            **{k: v for k, v in manifest.items() if k != "status"},
        }
        path = PATHS[kind].format(metadata.get("namespace", ""))
        self._made.append(f"{path}/{metadata['name']}")
        self._call("create", path, "POST", body)

    @contextmanager
    def stage(self, scene: Scene) -> Iterator[None]:
        """Bring a staged scene there, and take it away again, whatever happens."""
        try:
            for node in scene.nodes:
                self._create(node)
                self._report_ready(node)
            spaces = {pod["metadata"]["namespace"] for pod in (*scene.existing, scene.pod)}
            for space in sorted(spaces):
                self._create({"kind": "Namespace", "metadata": {"name": space}})
                self._wait_account(space)
            for manifest in (*scene.objects, *scene.existing):
                self._create(manifest)
            for node in scene.nodes:
                self._wait_untainted(node)
            yield
        finally:
            self._clean()

    def _report_ready(self, node: Manifest) -> None:
        room = node["status"]["allocatable"]
        status = {
            "allocatable": {"pods": "110", **room},
            "capacity": {"pods": "110", **room},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": node["status"].get("images", []),
        }
        path = f"{PATHS['Node']}/{node['metadata']['name']}/status"
        self._call("patch", path, "PATCH", {"status": status}, "application/merge-patch+json")

    def _poll(self, seconds: float) -> Iterator[None]:
        for _ in range(round(seconds / POLL_S)):
            yield
            if self._stop.wait(POLL_S):
                self._stop.check()

    def _wait_account(self, space: str) -> None:
        """Pods are refused until a namespace has its account; a server without accounts is not waited for long."""
        for _ in self._poll(ACCOUNT_S_MAX):
            try:
                self._call("get", f"/api/v1/namespaces/{space}/serviceaccounts/default", "GET")
            except KubeError as error:
                if error.code != NOT_FOUND:
                    raise
            else:
                return

    def _wait_untainted(self, node: Manifest) -> None:
        wanted = {taint["key"] for taint in node["spec"]["taints"]}
        path = f"{PATHS['Node']}/{node['metadata']['name']}"
        for _ in self._poll(NODE_READY_S_MAX):
            spec = self._call("get", path, "GET").get("spec", {})
            if {taint["key"] for taint in spec.get("taints", [])} <= wanted:
                return
        raise SimulationFailed(
            f"{path} stays tainted: the server's node controller does not take it for ready"
        )

    def place(self, pod: Manifest) -> tuple[str | None, str]:
        """Create a pod and return (its node or None, what the scheduler said). Raises: SimulationFailed."""
        self._create(pod)
        metadata = pod["metadata"]
        path = f"{PATHS['Pod'].format(metadata['namespace'])}/{metadata['name']}"
        for _ in self._poll(SCHEDULED_S_MAX):
            found = self._call("get", path, "GET")
            node = found.get("spec", {}).get("nodeName")
            if node:
                return str(node), ""
            for condition in found.get("status", {}).get("conditions", []):
                if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                    return None, str(condition.get("message", ""))
        raise SimulationFailed(f"{path} was neither scheduled nor refused within {SCHEDULED_S_MAX:.0f} s")

    def _clean(self) -> None:
        for path in reversed(self._made):
            try:
                self._api.call(
                    "delete", path, method="DELETE", stop=StopToken(), body={"gracePeriodSeconds": 0}
                )
            except KubeError as error:
                if error.code != NOT_FOUND:
                    raise
        self._made.clear()


def compare_placement(api: KubeApi, scene: Scene, run: str, *, stop: StopToken | None = None) -> Comparison:
    """Place a scene's pod on the real cluster and on ours. Raises: SimulationFailed, the driver's errors."""
    made = staged(scene, run)
    real = RealScheduler(api, run, stop)
    with real.stage(made):
        node, message = real.place(made.pod)
    return Comparison(simulated=simulated_decision(made), real_node=node, real_message=message)


def simulated_decision(scene: Scene) -> Decision:
    """Return our scheduler's first decision on a scene's pod."""
    cluster = EmbeddedCluster(scene.nodes)
    _apply_all(cluster, scene.objects)
    _apply_all(cluster, scene.existing)
    cluster.run_until(10)
    cluster.apply(scene.pod)
    cluster.run_until(10)
    metadata = scene.pod["metadata"]
    return cluster.explain(f"{metadata['namespace']}/{metadata['name']}")


def _apply_all(cluster: EmbeddedCluster, manifests: Sequence[Manifest]) -> None:
    for manifest in manifests:
        cluster.apply(manifest)
