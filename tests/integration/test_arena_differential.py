"""The documented scheduling cases before a real API server's scheduler, and before ours.

Against the kit's API server the placing is done by a binder of the test's own, so that what is held is the adapter:
staging, telling agreement from difference, cleaning up. Where KUBECONFIG points at a cluster, every case runs there.
"""

import importlib.util
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skep.arena.differential import (
    RealScheduler,
    Scene,
    best_nodes,
    compare_placement,
    simulated_decision,
    staged,
)
from skep.arena.simkube import SimKubeOptions
from skep.arena.simkube.api import KubeApi, KubeError
from skep.arena.simkube.driver import connect
from skep.errors.arena import SimulationFailed
from skep.testkit.kube import ApiError, FakeKubeApi, Resource

TABLE = Path(__file__).parents[1] / "unit" / "arena" / "scheduler" / "test_cases.py"
MORE = (
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", is_namespaced=False),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
)
KINDS = ("nodes", "namespaces", "pods", "services", "priorityclasses", "poddisruptionbudgets")


def table() -> Any:
    spec = importlib.util.spec_from_file_location("scheduling_cases", TABLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = table()


def scene_of(case: dict[str, Any]) -> Scene:
    existing = []
    for line in case.get("existing", []):
        name, on, *tokens = line.split()
        existing.append(CASES.pod(name, tokens, on))
    return Scene(
        nodes=tuple(CASES.node(line) for line in case["nodes"]),
        objects=tuple(case.get("objects", [])),
        existing=tuple(existing),
        pod=CASES.pod("new", case["pod"].split(), more=case.get("spec")),
    )


def is_portable(case: dict[str, Any]) -> bool:
    """A global default would change the real cluster; a node that is not ready cannot be staged; no nodes, no selector."""
    text = str(case)
    return bool(case["nodes"]) and "globalDefault" not in text and "notready" not in text


PORTABLE = [case for case in CASES.CASES if is_portable(case)]
BY_ID = {case["id"]: case for case in PORTABLE}
Choose = Callable[[dict[str, Any]], str | None]


class Binder(threading.Thread):
    """Binds pods of the fake server to whatever node `choose` names; None is told as unschedulable."""

    def __init__(self, server: FakeKubeApi, choose: Choose) -> None:
        super().__init__(daemon=True)
        self._server, self._choose, self._over = server, choose, threading.Event()

    def run(self) -> None:
        pods = self._server.resource("pods")
        while not self._over.wait(0.02):
            for pod in self._server.store.list_page(pods, "").items:
                if pod["spec"].get("nodeName") or pod.get("status", {}).get("conditions"):
                    continue
                node, name = self._choose(pod), (pods, pod["metadata"]["namespace"], pod["metadata"]["name"])
                merge = "application/merge-patch+json"
                try:
                    if node is not None:
                        self._server.store.patch(*name, {"spec": {"nodeName": node}}, merge)
                    else:
                        told = {
                            "type": "PodScheduled",
                            "status": "False",
                            "reason": "Unschedulable",
                            "message": "no",
                        }
                        self._server.store.patch(
                            *name, {"status": {"conditions": [told]}}, merge, subresource="status"
                        )
                except ApiError:  # The pod was deleted in between.
                    continue

    def stop(self) -> None:
        self._over.set()
        self.join(5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubeApi]:
    monkeypatch.setattr("skep.arena.differential.ACCOUNT_S_MAX", 0.1)
    with FakeKubeApi(resources=MORE) as running:
        yield running


@pytest.fixture
def api(server: FakeKubeApi, tmp_path: Path) -> Iterator[KubeApi]:
    found = connect(SimKubeOptions(kubeconfig=server.kubeconfig(tmp_path / "config")))
    yield found
    found.close()


@pytest.fixture
def bound(server: FakeKubeApi) -> Iterator[Callable[[Choose], None]]:
    binders: list[Binder] = []

    def begin(choose: Choose) -> None:
        binders.append(Binder(server, choose))
        binders[-1].start()

    yield begin
    for binder in binders:
        binder.stop()


def left_over(server: FakeKubeApi, run: str) -> list[str]:
    return [
        item["metadata"]["name"]
        for kind in KINDS
        for item in server.store.list_page(server.resource(kind), "").items
        if run in item["metadata"]["name"] + item["metadata"].get("namespace", "")
    ]


def test_a_scheduler_that_chooses_as_ours_agrees_and_nothing_is_left(
    server: FakeKubeApi, api: KubeApi, bound: Callable[[Choose], None]
) -> None:
    case = scene_of(BY_ID["web-goes-beside-its-cache-and-off-other-webs"])
    ours = simulated_decision(staged(case, "run1"))
    bound(lambda pod: ours.node if pod["metadata"]["name"] == "new" else None)
    found = compare_placement(api, case, "run1")
    assert found.agrees
    assert found.real_node == "run1-b"
    assert left_over(server, "run1") == []


def test_a_scheduler_that_chooses_otherwise_is_told_apart(
    api: KubeApi, bound: Callable[[Choose], None]
) -> None:
    bound(lambda _: "run2-a")
    found = compare_placement(api, scene_of(BY_ID["no-schedule-keeps-off"]), "run2")
    assert (found.real_node, found.simulated.node) == ("run2-a", "run2-b")
    assert not found.agrees


def test_refusing_agrees_with_refusing_only(api: KubeApi, bound: Callable[[Choose], None]) -> None:
    bound(lambda _: None)
    assert compare_placement(api, scene_of(BY_ID["too-much-cpu-fits-nowhere"]), "run3").agrees
    found = compare_placement(api, scene_of(BY_ID["fits-the-only-node"]), "run4")
    assert not found.agrees
    assert found.real_message == "no"


def test_priorities_budgets_and_services_are_staged_and_cleaned(
    server: FakeKubeApi, api: KubeApi, bound: Callable[[Choose], None]
) -> None:
    bound(lambda _: None)
    for number, name in enumerate(
        ("a-disruption-budget-is-respected-where-it-can-be", "a-service-spreads-its-pods-by-default")
    ):
        compare_placement(api, scene_of(BY_ID[name]), f"run5{number}")
    assert left_over(server, "run5") == []


def test_a_scene_that_fails_halfway_is_cleaned_too(server: FakeKubeApi, api: KubeApi) -> None:
    server.faults.fail("create", "services", ApiError(422, "Invalid", "no"), times=1)
    scene = scene_of(BY_ID["a-service-spreads-its-pods-by-default"])
    with pytest.raises(KubeError):
        compare_placement(api, scene, "run6")
    assert left_over(server, "run6") == []


def test_a_server_without_a_scheduler_is_told(
    server: FakeKubeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skep.arena.differential.SCHEDULED_S_MAX", 0.3)
    with pytest.raises(SimulationFailed):
        compare_placement(api, scene_of(BY_ID["fits-the-only-node"]), "run7")
    assert left_over(server, "run7") == []


def test_staging_changes_no_decision_of_ours() -> None:
    for case in PORTABLE:
        plain, moved = simulated_decision(scene_of(case)), simulated_decision(staged(scene_of(case), "r"))
        assert moved.outcome == plain.outcome, case["id"]
        assert {name.removeprefix("r-") for name in best_nodes(moved)} == best_nodes(plain), case["id"]


REAL = PORTABLE if "KUBECONFIG" in os.environ else []


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL, ids=[case["id"] for case in REAL])
def test_the_real_scheduler_decides_as_ours(case: dict[str, Any]) -> None:
    found = compare_placement(connect(SimKubeOptions()), scene_of(case), f"skep-{uuid.uuid4().hex[:8]}")
    assert found.agrees, found


def test_the_adapter_needs_no_cluster_to_be_made(api: KubeApi) -> None:
    assert RealScheduler(api, "x")
