"""The arena: a trace, a simulated cluster, a policy, and what came of it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_bdd import given, parsers, then, when

from skep.errors import SkepError

if TYPE_CHECKING:
    from skep.arena.episode import EpisodeResult
    from skep.testkit.kube import FakeKubeApi

STEPS_MAX = 4


class Arena:
    """What a scenario set up and what came of it. `nodes` None stands for the embedded cluster's default."""

    def __init__(self, folder: Path, resources: ExitStack) -> None:
        self.folder, self.resources = folder, resources
        self.trace = folder / "trace.msgpack"
        self.nodes: tuple[int, str] | None = None
        self.api: FakeKubeApi | None = None
        self.results: list[EpisodeResult] = []
        self.workspaces: list[Path] = []
        self.error: SkepError | None = None

    def run(self, policy: str) -> None:
        """Run an episode in a workspace of its own, and keep its result or its error."""
        from skep.arena.episode import run_episode
        from skep.arena.runner import StepOptions

        workspace = self.folder / f"workspace-{len(self.workspaces)}"
        self.workspaces.append(workspace)
        options = StepOptions(workspace=workspace, steps_max=STEPS_MAX if policy != "noop" else 1)
        duration_s = 1.0 if self.api else 60.0
        try:
            with self._driver() as driver:
                self.results.append(
                    run_episode(
                        self.trace,
                        "default",
                        "web",
                        3,
                        duration_s,
                        policy,
                        seed=3,
                        driver=driver,
                        options=options,
                    )
                )
        except SkepError as error:
            self.error = error

    def _driver(self) -> Any:
        from skep.arena.embedded_driver import EmbeddedDriver
        from skep.arena.nodes import DEFAULT_NODES, NodePlan
        from skep.arena.simkube import SimKubeDriver, SimKubeOptions

        if self.api is not None:
            config = self.api.kubeconfig(self.folder / "kubeconfig")
            return SimKubeDriver(SimKubeOptions(kubeconfig=config, speed=10.0))
        nodes = DEFAULT_NODES if self.nodes is None else (NodePlan(count=self.nodes[0], cpu=self.nodes[1]),)
        return EmbeddedDriver(nodes)

    def records(self, run: int = -1) -> list[dict[str, Any]]:
        """Return the records of a run."""
        lines = (self.workspaces[run] / "runs" / "step.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def result(self) -> "EpisodeResult":
        """Return the last episode; its error is the scenario's where it has one."""
        if self.error is not None:
            raise self.error
        return self.results[-1]


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """A folder for traces and runs; what a scenario started ends with it."""
    with ExitStack() as resources:
        yield Arena(tmp_path, resources)


@given(parsers.parse('a trace of {count:d} pods of "{cpu}" CPU'))
def _trace(arena: Arena, count: int, cpu: str) -> None:
    from skep.arena.trace.generate import WorkloadPlan, trace_of

    arena.trace.write_bytes(trace_of([WorkloadPlan(replicas=count, cpu=cpu)]).to_bytes())


@given("the trace is cut short")
def _cut(arena: Arena) -> None:
    arena.trace.write_bytes(arena.trace.read_bytes()[:-10])


@given(parsers.parse('a simulated cluster of {count:d} nodes with "{cpu}" CPU'))
def _nodes(arena: Arena, count: int, cpu: str) -> None:
    arena.nodes = (count, cpu)


@given("a Kubernetes cluster with SimKube")
def _simkube(arena: Arena, kube: "FakeKubeApi") -> None:
    from skep.testkit.kube import FakePods, FakeSimKube

    arena.api = kube
    arena.resources.enter_context(FakeSimKube(kube, FakePods(ready=2, pending=1), labels={"app": "web"}))


@given("its pods cannot be listed")
def _unlistable(arena: Arena) -> None:
    from skep.testkit.kube import ApiError

    assert arena.api is not None, "begin with 'Given a Kubernetes cluster with SimKube'"
    arena.api.faults.fail("list", "pods", ApiError(400, "BadRequest", "not today"))


@when(parsers.parse('I run an episode with the policy "{policy}"'))
def _episode(arena: Arena, policy: str) -> None:
    arena.run(policy)


@then("the episode should be solved")
def _solved(arena: Arena) -> None:
    assert arena.result().is_solved, arena.result().ended_by


@then("the episode should not be solved")
def _unsolved(arena: Arena) -> None:
    assert not arena.result().is_solved


@then(parsers.parse('the actions should be "{actions}"'))
def _actions(arena: Arena, actions: str) -> None:
    assert [step.decision.action for step in arena.result().steps] == actions.split(", ")


@then(parsers.parse('every step should be recorded with status "{status}"'))
def _recorded(arena: Arena, status: str) -> None:
    found = arena.records()
    assert found, "no step was recorded"
    assert [(one["step"], one["status"]) for one in found] == [
        (number, status) for number in range(len(found))
    ]


@then("the summary should count every recorded step")
def _summary(arena: Arena) -> None:
    summary = json.loads((arena.workspaces[-1] / "runs" / "summary.json").read_text())
    assert summary["steps"] == len(arena.records()) == len(arena.result().steps)


@then("both episodes should have left the same records")
def _same(arena: Arena) -> None:
    first, second = (
        [{**one, "trace_out": None} for one in arena.records(run)] for run in range(len(arena.workspaces))
    )
    assert first == second


@then(parsers.parse('the episode should be refused as "{code}"'))
def _refused(arena: Arena, code: str) -> None:
    assert arena.error is not None, "the episode ran"
    assert arena.error.code == code


@then("nothing should have been written")
def _nothing(arena: Arena) -> None:
    assert not arena.workspaces[-1].exists()


@then("an action should have been blocked")
def _blocked(arena: Arena) -> None:
    assert any(step.action_info.blocked for step in arena.result().steps)


@then("no simulation should be left on the cluster")
def _clean(arena: Arena) -> None:
    assert arena.api is not None, "begin with 'Given a Kubernetes cluster with SimKube'"
    left = [
        one
        for plural in ("simulations", "leases")
        for one in arena.api.store.list_all(arena.api.resource(plural))
    ]
    assert left == []
