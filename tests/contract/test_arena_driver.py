"""The contract of the arena's `Driver`, run over the embedded cluster, SimKube on the kit's API server, and a recording."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skep.arena.driver import Driver, SimulationSpec, StopToken
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.ids import deterministic_id, simulation_name
from skep.arena.nodes import NodePlan
from skep.arena.recorded import RecordedDriver
from skep.arena.runner import StepOptions, one_step
from skep.arena.simkube import SimKubeDriver, SimKubeOptions
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.workload import WorkloadRef
from skep.errors.arena import SimulationNotFound, StepCancelled
from skep.testkit.kube import FakeKubeApi, FakePods, FakeSimKube

TRACE = trace_of([WorkloadPlan(cpu="1500m")])
WEB = WorkloadRef("default", "web")
NAME = simulation_name("web", deterministic_id(TRACE.sha256, "default", "web", 3, 0, 0))
SPEC = SimulationSpec(name=NAME, trace=TRACE, workload=WEB, duration_s=1.0)


def recording(folder: Path) -> Path:
    with EmbeddedDriver() as driver:
        one_step(TRACE, "default", "web", 3, 60.0, driver=driver, options=StepOptions(workspace=folder))
    return folder / "runs"


@pytest.fixture(params=["embedded", "simkube", "recorded"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """A driver on which two of three pods fit."""
    if request.param == "embedded":
        with EmbeddedDriver((NodePlan(count=2, cpu="2"),)) as embedded:
            yield embedded
    elif request.param == "recorded":
        with RecordedDriver(recording(tmp_path)) as recorded:
            yield recorded
    else:
        with FakeKubeApi() as api, FakeSimKube(api, FakePods(ready=2, pending=1), labels={"app": "web"}):
            options = SimKubeOptions(kubeconfig=api.kubeconfig(tmp_path / "config"), speed=10.0)
            with SimKubeDriver(options) as simkube:
                yield simkube


def test_create_wait_observe_delete(driver: Driver) -> None:
    duration_s = 1.0 if driver.name == "simkube" else 60.0
    name = driver.create(SPEC)
    assert name == NAME
    assert driver.wait(name, duration_s, StopToken()) == duration_s
    seen = driver.observe(name, WEB)
    assert (seen.ready, seen.pending, seen.total) == (2, 1, 3)
    assert seen.reasons == {"Insufficient cpu": 1}
    assert driver.observe(name, WEB) == seen
    driver.delete(name)


def test_deleting_twice_or_what_never_was_is_no_error(driver: Driver) -> None:
    driver.delete("sim-never-was-00000000")
    driver.create(SPEC)
    driver.delete(NAME)
    driver.delete(NAME)


def test_simulation_can_be_created_again_once_deleted(driver: Driver) -> None:
    for _ in range(2):
        driver.delete(driver.create(SPEC))


@pytest.mark.parametrize(
    "call",
    [lambda driver: driver.wait(NAME, 1.0, StopToken()), lambda driver: driver.observe(NAME, WEB)],
    ids=["wait", "observe"],
)
def test_simulation_that_was_not_created_or_is_gone_is_told(
    driver: Driver, call: Callable[[Driver], object]
) -> None:
    with pytest.raises(SimulationNotFound):
        call(driver)
    driver.delete(driver.create(SPEC))
    with pytest.raises(SimulationNotFound):
        call(driver)


def test_stop_token_ends_the_wait(driver: Driver) -> None:
    stop = StopToken()
    stop.stop()
    name = driver.create(SPEC)
    with pytest.raises(StepCancelled):
        driver.wait(name, 600.0, stop)
    driver.delete(name)


def test_closing_deletes_what_is_left(driver: Driver) -> None:
    driver.create(SPEC)
    driver.close()
