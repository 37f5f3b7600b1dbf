"""A fake SimKube on the fake API server: it sees Simulations, goes through their states, and makes their pods.

Its delays are milliseconds, so that a driver's whole life takes a test a fraction of a second.
"""

import threading
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from skep.testkit.kube.resources import SIMULATIONS
from skep.testkit.kube.server import FakeKubeApi
from skep.testkit.kube.status import ApiError

REQUIRED: Final = {
    "driver": ("image", "namespace", "port", "tracePath"),
    "lifecycleParams": ("imagePullDelay", "imagePullJitter", "podStartupDelay", "podStartupJitter"),
}


class FakePods(NamedTuple):
    """The pods that a simulation shows: so many ready, so many that the scheduler found no node for."""

    ready: int = 0
    pending: int = 0
    message: str = "0/3 nodes are available: 3 Insufficient cpu."


def check_simulation(found: dict[str, Any]) -> tuple[str, str] | None:
    """Object, as the CRD's schema does, to what SimKube requires."""
    spec = found.get("spec") or {}
    for part, fields in REQUIRED.items():
        for field in fields:
            if field not in (spec.get(part) or {}):
                return f"spec.{part}.{field}", "Required value"
    return None


class FakeSimKube:
    """The controller; `with` starts and stops it. `states` are gone through, `step_s` apart."""

    def __init__(
        self,
        api: FakeKubeApi,
        pods: FakePods,
        *,
        labels: dict[str, str],
        states: tuple[str, ...] = ("Initializing", "Running"),
        step_s: float = 0.02,
    ) -> None:
        self._api, self._pods, self._labels, self._states, self._step_s = api, pods, labels, states, step_s
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="skep-fake-simkube", daemon=True)
        api.store.validate_with(SIMULATIONS, check_simulation)

    def __enter__(self) -> Self:
        self._unlisten = self._api.store.listen(self._changed.set)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._changed.set()
        self._thread.join(5.0)
        self._unlisten()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._changed.clear()
            for found in self._api.store.list_all(SIMULATIONS):
                if found["metadata"]["uid"] not in self._seen:
                    self._seen.add(found["metadata"]["uid"])
                    self._replay(found)
            self._changed.wait(0.5)

    def _replay(self, found: dict[str, Any]) -> None:
        name = found["metadata"]["name"]
        try:
            for state in self._states:
                if state == "Running":
                    self._make_pods(found)
                self._api.store.patch(
                    SIMULATIONS,
                    "",
                    name,
                    {"status": {"state": state}},
                    "application/merge-patch+json",
                    subresource="status",
                )
                if self._stopping.wait(self._step_s):
                    return
        except ApiError as error:
            if error.code != 404:
                raise

    def _make_pods(self, found: dict[str, Any]) -> None:
        store = self._api.store
        prefix = found["spec"]["driver"].get("virtualNsPrefix", "virtual")
        namespace = f"{prefix}-default"
        owner = {
            "apiVersion": "simkube.io/v1",
            "kind": "Simulation",
            "name": found["metadata"]["name"],
            "uid": found["metadata"]["uid"],
        }
        try:
            store.create(self._api.resource("namespaces"), "", {"metadata": {"name": namespace}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        for number in range(self._pods.ready + self._pods.pending):
            is_ready = number < self._pods.ready
            name = f"{found['metadata']['name']}-{number}"
            body = {
                "metadata": {"name": name, "labels": self._labels, "ownerReferences": [owner]},
                "spec": {"containers": [{"name": "app"}]},
            }
            store.create(self._api.resource("pods"), namespace, body)
            conditions = (
                [{"type": "Ready", "status": "True"}]
                if is_ready
                else [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": self._pods.message,
                    }
                ]
            )
            status = {"status": {"phase": "Running" if is_ready else "Pending", "conditions": conditions}}
            store.patch(
                self._api.resource("pods"),
                namespace,
                name,
                status,
                "application/merge-patch+json",
                subresource="status",
            )
