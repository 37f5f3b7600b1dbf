"""The simkube driver against the kit's API server, through the real `kubernetes` client."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skep.arena.driver import SimulationSpec, StopToken
from skep.arena.runner import StepOptions, one_step
from skep.arena.simkube import SimKubeDriver, SimKubeOptions
from skep.arena.simkube.driver import connect
from skep.arena.simkube.pods import observe_pods
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.workload import WorkloadRef
from skep.errors.arena import (
    DriverForbidden,
    DriverUnavailable,
    ObservationFailed,
    SimulationExists,
    SimulationFailed,
    SimulationNotFound,
    StepCancelled,
)
from skep.testkit.kube import ApiError, FakeKubeApi, FakePods, FakeSimKube, Rule

WEB = WorkloadRef("default", "web")
TRACE = trace_of([WorkloadPlan()])
LABELS = {"app": "web"}


@pytest.fixture
def api() -> Iterator[FakeKubeApi]:
    with FakeKubeApi() as server:
        server.faults.bookmark_every_s = 0.05
        yield server


@pytest.fixture
def simkube(api: FakeKubeApi) -> Iterator[FakeSimKube]:
    with FakeSimKube(api, FakePods(ready=2, pending=1), labels=LABELS) as controller:
        yield controller


MakeDriver = Callable[..., SimKubeDriver]


@pytest.fixture
def make_driver(api: FakeKubeApi, tmp_path: Path) -> Iterator[MakeDriver]:
    made: list[SimKubeDriver] = []

    def make(token: str = "admin-token", **options: Any) -> SimKubeDriver:
        path = api.kubeconfig(tmp_path / f"config-{len(made)}", token=token)
        driver = SimKubeDriver(
            SimKubeOptions(
                kubeconfig=path, **{"speed": 10.0, "start_s_max": 10.0, "lease_wait_s_max": 1.0, **options}
            )
        )
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()


def spec(name: str = "sim-web-1", duration_s: float = 1.0) -> SimulationSpec:
    return SimulationSpec(name=name, trace=TRACE, workload=WEB, duration_s=duration_s)


def left_over(api: FakeKubeApi) -> list[str]:
    kinds = [one for one in api.resources.values() if one.plural in ("simulations", "leases", "configmaps")]
    return [one["metadata"]["name"] for kind in kinds for one in api.store.list_all(kind)]


def test_step_runs_on_simkube_and_leaves_nothing(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver, tmp_path: Path
) -> None:
    (tmp_path / "t.msgpack").write_bytes(TRACE.to_bytes())
    folder = tmp_path / "mounted"
    folder.mkdir()
    driver = make_driver(trace_folder=folder)
    result = one_step(
        tmp_path / "t.msgpack",
        "default",
        "web",
        3,
        2.0,
        "heuristic",
        driver=driver,
        options=StepOptions(workspace=tmp_path),
    )
    assert (result.observation.ready, result.observation.pending, result.observation.total) == (2, 1, 3)
    assert result.observation.reasons == {"Insufficient cpu": 1}
    assert result.decision.action == "reduce_cpu_small"
    assert result.record.driver == "simkube"
    assert (folder / "t.msgpack").read_bytes() == TRACE.to_bytes()
    assert left_over(api) == []


def test_created_simulation_has_all_that_simkube_requires(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver
) -> None:
    hooks = {"preRunHooks": [{"cmd": "true", "args": [], "ignoreFailure": False, "sendSim": True}]}
    make_driver(hooks=hooks).create(spec(duration_s=1.2))
    (found,) = api.store.list_all(api.resource("simulations"))
    wanted = found["spec"]
    assert wanted["duration"] == "+2s"
    assert wanted["hooks"] == hooks
    assert "metrics" not in wanted
    assert wanted["driver"]["tracePath"] == "file:///data/sim-web-1.msgpack"
    assert set(wanted["lifecycleParams"]) == {
        "imagePullDelay",
        "imagePullJitter",
        "podStartupDelay",
        "podStartupJitter",
    }


def test_existing_simulation_is_an_error_and_survives(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver
) -> None:
    first, second = make_driver(), make_driver()
    first.create(spec())
    api.store.delete(api.resource("leases"), "default", "skep-arena")
    with pytest.raises(SimulationExists):
        second.create(spec())
    second.delete("sim-web-1")
    assert [one["metadata"]["name"] for one in api.store.list_all(api.resource("simulations"))] == [
        "sim-web-1"
    ]


def test_one_simulation_a_cluster_by_lease(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver
) -> None:
    first, second = make_driver(), make_driver()
    first.create(spec("sim-a"))
    with pytest.raises(DriverUnavailable, match="lease"):
        second.create(spec("sim-b"))
    second.delete("sim-b")
    first.delete("sim-a")
    assert second.create(spec("sim-b")) == "sim-b"


def test_dead_holder_loses_the_lease(api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver) -> None:
    stale = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2020-01-01T00:00:00.000000Z"}
    api.store.create(api.resource("leases"), "default", {"metadata": {"name": "skep-arena"}, "spec": stale})
    assert make_driver().create(spec()) == "sim-web-1"


@pytest.mark.parametrize("verb", ["create", "list", "get", "delete"])
def test_throttling_and_server_errors_are_waited_out(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver, verb: str
) -> None:
    driver = make_driver()
    resource = "pods" if verb == "list" else "simulations"
    api.faults.throttle(verb, resource, retry_after_s=0)
    api.faults.fail(verb, resource, ApiError(503, "ServiceUnavailable", "overloaded"))
    api.faults.cut_connection(verb, resource)
    name = driver.create(spec())
    driver.wait(name, 1.0, StopToken())
    assert driver.observe(name, WEB).total == 3
    driver.delete(name)
    assert api.faults.left == 0
    assert left_over(api) == []


def test_endless_throttling_ends(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    api.faults.throttle("create", "simulations", times=50, retry_after_s=0)
    with pytest.raises(DriverUnavailable, match="6 times"):
        make_driver().create(spec())


def test_watch_survives_drops_and_compaction(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    states = ("Blocked", "Initializing", "Initializing", "Running", "Finished")
    api.faults.drop_watches_after(1)
    with FakeSimKube(api, FakePods(ready=3), labels=LABELS, states=states, step_s=0.1):
        driver = make_driver()
        name = driver.create(spec())
        compacting = threading.Timer(0.15, api.store.compact)
        compacting.start()
        assert driver.wait(name, 1.0, StopToken()) == 1.0
        compacting.join()
        assert driver.observe(name, WEB).ready == 3


def test_failed_simulation_is_told(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    with FakeSimKube(api, FakePods(), labels=LABELS, states=("Initializing", "Failed")):
        driver = make_driver()
        name = driver.create(spec())
        with pytest.raises(SimulationFailed, match="failed"):
            driver.wait(name, 1.0, StopToken())


def test_blocked_simulation_is_given_up(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    with FakeSimKube(api, FakePods(), labels=LABELS, states=("Blocked",)):
        driver = make_driver(start_s_max=0.5)
        name = driver.create(spec())
        with pytest.raises(SimulationFailed, match="not running"):
            driver.wait(name, 1.0, StopToken())


def test_simulation_deleted_by_somebody_is_told(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    driver = make_driver()
    name = driver.create(spec())
    vanishing = threading.Timer(0.1, api.store.delete, (api.resource("simulations"), "", name))
    vanishing.start()
    with pytest.raises(SimulationNotFound):
        driver.wait(name, 1.0, StopToken())
    vanishing.join()


def test_stop_token_ends_the_wait_and_the_simulation_goes(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver, tmp_path: Path
) -> None:
    stop = StopToken()
    stopping = threading.Timer(0.3, stop.stop)
    stopping.start()
    with pytest.raises(StepCancelled):
        one_step(
            TRACE,
            "default",
            "web",
            3,
            600.0,
            driver=make_driver(speed=1.0),
            options=StepOptions(workspace=tmp_path),
            stop=stop,
        )
    stopping.join()
    assert left_over(api) == []


def test_rbac_errors_say_what_to_grant(api: FakeKubeApi, make_driver: MakeDriver) -> None:
    token = api.rbac.add_user(
        "weak", Rule(("*",), ("coordination.k8s.io",)), Rule(("deletecollection",), ("",), ("pods",))
    )
    with pytest.raises(DriverForbidden, match="grant `create` on /apis/simkube"):
        make_driver(token).create(spec())


def test_unreadable_observation_is_an_error(
    api: FakeKubeApi, simkube: FakeSimKube, make_driver: MakeDriver
) -> None:
    driver = make_driver()
    name = driver.create(spec())
    driver.wait(name, 1.0, StopToken())
    api.faults.fail("list", "pods", ApiError(400, "BadRequest", "no"))
    with pytest.raises(ObservationFailed):
        driver.observe(name, WEB)


def test_missing_kind_is_told_and_config_map_is_the_fall_back(tmp_path: Path) -> None:
    with FakeKubeApi(has_simkube=False) as api:
        options = SimKubeOptions(kubeconfig=api.kubeconfig(tmp_path / "config"))
        with SimKubeDriver(options) as driver, pytest.raises(DriverUnavailable, match="install SimKube"):
            driver.create(spec())
        with SimKubeDriver(
            SimKubeOptions(kubeconfig=options.kubeconfig, has_config_map_fallback=True)
        ) as driver:
            name = driver.create(spec())
            (found,) = api.store.list_all(api.resource("configmaps"))
            assert found["data"]["trace-sha256"] == TRACE.sha256
            driver.wait(name, 0.01, StopToken())
            driver.delete(name)
        assert left_over(api) == []


def test_no_cluster_is_told(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable, match="embedded"):
        connect(SimKubeOptions(kubeconfig=tmp_path / "none"))


def test_pods_on_their_way_out_and_done_are_not_counted() -> None:
    def pod(phase: str, **metadata: str) -> dict[str, Any]:
        return {
            "metadata": metadata,
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(phase == "Running")}]},
        }

    killed = pod("Running")
    killed["status"]["containerStatuses"] = [
        {"restartCount": 3, "lastState": {"terminated": {"reason": "OOMKilled"}}}
    ]
    pods = [
        pod("Running"),
        killed,
        pod("Pending"),
        pod("Succeeded"),
        pod("Running", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    seen = observe_pods(pods)
    assert (seen.ready, seen.pending, seen.total, seen.restarts, seen.oom_killed) == (2, 1, 3, 3, 1)
