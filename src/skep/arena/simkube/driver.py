"""From the driver's five verbs to a Simulation's life on a cluster.

    create   take the cluster's lease → check that the kind is served → clear left-over pods → POST (409 is an error)
    wait     watch the status: Blocked, Initializing → Running; then `duration_s` of real time, until Finished or Failed
    observe  list the workload's pods in the virtual namespace
    delete   DELETE, wait until it is gone, give the lease back; also where create failed half-way

SimKube runs in real time, in whole seconds, and needs 30 to 50 s to initialise.
"""

import math
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from kubernetes import client, config

from skep.arena.driver import DriverScope, SimulationSpec, StopToken
from skep.arena.observation import Observation
from skep.arena.simkube.api import GONE, KubeApi, KubeError
from skep.arena.simkube.lease import CONFLICT, NOT_FOUND, ClusterLease
from skep.arena.simkube.manifest import MANAGED_BY, Delays, ReplayDriver, config_map, simulation
from skep.arena.simkube.pods import observe_pods
from skep.arena.workload import WorkloadRef, pod_labels
from skep.errors.arena import (
    DriverForbidden,
    DriverUnavailable,
    ObservationFailed,
    SimulationExists,
    SimulationFailed,
    SimulationNotFound,
)

GROUP: Final = "/apis/simkube.io/v1"
WATCH_S: Final = 5
DROPS_MAX: Final = 20
"""Watches in a row that may break without an event before the cluster counts as lost."""


class SimKubeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the cluster and what to ask of it; `hooks` and `metrics` go into the Simulation as they are. `trace_folder` is mounted where `replay.trace_url` points to."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "default"
    trace_folder: Path | None = None
    replay: ReplayDriver = ReplayDriver()
    delays: Delays = Delays()
    speed: float = 1.0
    repetitions: int = 1
    start_s_max: float = 180.0
    delete_s_max: float = 60.0
    lease_s: int = 60
    lease_wait_s_max: float = 60.0
    hooks: dict[str, list[dict[str, Any]]] = {}
    metrics: dict[str, Any] = {}
    has_config_map_fallback: bool = False
    is_virtual_namespace_cleared: bool = True


def connect(options: SimKubeOptions) -> KubeApi:
    """Reach the cluster that a kubeconfig, or the pod that we run in, names. Raises: DriverUnavailable."""
    configuration = client.Configuration()
    try:
        if options.kubeconfig is None and options.context is None:
            config.load_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(options.kubeconfig) if options.kubeconfig else None
            config.load_kube_config(  # type: ignore[no-untyped-call]
                path, options.context, client_configuration=configuration
            )
    except (config.ConfigException, OSError) as error:
        raise DriverUnavailable(
            f"no Kubernetes cluster to talk to: {error}; set KUBECONFIG, or use --driver embedded"
        ) from error
    return KubeApi(configuration)


class SimKubeDriver(DriverScope):
    """Runs each simulation on SimKube. One at a time for a cluster."""

    name = "simkube"

    def __init__(
        self,
        options: SimKubeOptions | None = None,
        *,
        api: KubeApi | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or SimKubeOptions()
        self._api = api or connect(self._options)
        self._clock = clock
        self._stop = StopToken()
        self._holder = f"skep-{uuid.uuid4().hex[:8]}"
        self._lease = ClusterLease(self._api, self._options.namespace, self._holder, self._options.lease_s)
        self._specs: dict[str, SimulationSpec] = {}
        self._is_config_map: set[str] = set()
        self._posted: set[str] = set()

    def create(self, spec: SimulationSpec) -> str:
        """Create the Simulation. Raises: SimulationExists, DriverForbidden, DriverUnavailable."""
        self._specs[spec.name] = spec
        self._lease.acquire(within_s=self._options.lease_wait_s_max, stop=self._stop)
        is_served = self._is_served()
        if self._options.trace_folder is not None:
            self._publish(spec, self._options.trace_folder)
        if self._options.is_virtual_namespace_cleared:
            self._clear_pods(spec.workload.namespace)
        wanted = simulation(
            spec,
            self._options.replay,
            self._options.delays,
            speed=self._options.speed,
            repetitions=self._options.repetitions,
            further={"hooks": self._options.hooks, "metrics": self._options.metrics},
        )
        path = f"{GROUP}/simulations"
        if not is_served:
            self._is_config_map.add(spec.name)
            path = f"/api/v1/namespaces/{self._options.namespace}/configmaps"
            wanted = config_map(spec, wanted, self._options.namespace)
        self._posted.add(spec.name)
        try:
            self._api.call("create", path, method="POST", body=wanted, stop=self._stop)
        except DriverForbidden:
            self._posted.discard(spec.name)
            raise
        except KubeError as error:
            self._posted.discard(spec.name)
            if error.code == CONFLICT:
                raise SimulationExists(
                    f"{self._api.host}: {spec.name} exists already, from a run that was killed or is alive; "
                    f"`kubectl delete simulation {spec.name}`",
                    simulation=spec.name,
                ) from error
            raise SimulationFailed(
                f"{self._api.host}: {spec.name} was refused: {error}", simulation=spec.name
            ) from error
        return spec.name

    def wait(self, name: str, duration_s: float, stop: StopToken) -> float:
        """Wait for it to run, then for the duration. Raises: SimulationFailed, SimulationNotFound, StepCancelled."""
        self._known(name)
        if name in self._is_config_map:
            self._sleep(duration_s, stop)
            return duration_s
        state = self._watch_until(name, {"Running", "Paused", "Finished"}, self._options.start_s_max, stop)
        if state is None:
            raise SimulationFailed(
                f"{name}: not running after {self._options.start_s_max:g} s", simulation=name
            )
        if state != "Finished":
            self._watch_until(name, {"Finished"}, duration_s / self._options.speed, stop)
        return duration_s

    def observe(self, name: str, workload: WorkloadRef) -> Observation:
        """Count the workload's pods. Raises: ObservationFailed."""
        spec = self._known(name)
        labels = pod_labels(spec.trace, workload) or {"app": workload.name}
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}
        path = f"/api/v1/namespaces/{self._virtual(workload.namespace)}/pods"
        try:
            found = self._api.call("list", path, method="GET", query=query, stop=self._stop)
            return observe_pods(found["items"])
        except (KubeError, KeyError, TypeError) as error:
            raise ObservationFailed(
                f"{self._api.host}: the pods of {workload.name} cannot be listed: {error}", simulation=name
            ) from error

    def delete(self, name: str) -> None:
        """Delete it and wait until it is gone; give the lease back whatever happens."""
        try:
            if name in self._posted:
                self._delete_and_wait(name)
        finally:
            self._posted.discard(name)
            self._specs.pop(name, None)
            self._is_config_map.discard(name)
            if not self._specs:
                self._lease.release(StopToken())

    def close(self) -> None:
        """Delete what is left and close the connections."""
        try:
            for name in tuple(self._specs):
                self.delete(name)
        finally:
            self._api.close()

    def _is_served(self) -> bool:
        try:
            self._api.call("get", GROUP, method="GET", stop=self._stop)
        except KubeError as error:
            if error.code != NOT_FOUND:
                raise DriverUnavailable(f"{self._api.host}: {error}", host=self._api.host) from error
            if self._options.has_config_map_fallback:
                return False
            raise DriverUnavailable(
                f"{self._api.host}: no kind Simulation (simkube.io/v1) there; install SimKube, or allow the ConfigMap fall-back",
                host=self._api.host,
            ) from error
        return True

    def _publish(self, spec: SimulationSpec, folder: Path) -> None:
        file = spec.trace_path.name if spec.trace_path else f"{spec.name}.msgpack"
        temporary = folder / f".{file}.{self._holder}.tmp"
        try:
            temporary.write_bytes(spec.trace.to_bytes())
            shutil.move(temporary, folder / file)
        except OSError as error:
            raise DriverUnavailable(
                f"{folder}: the trace cannot be put there for SimKube: {error.strerror}"
            ) from error

    def _clear_pods(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{self._virtual(namespace)}/pods"
        try:
            self._api.call("deletecollection", path, method="DELETE", stop=self._stop)
        except KubeError as error:
            if error.code != NOT_FOUND:
                raise DriverUnavailable(
                    f"{self._api.host}: left-over pods cannot be deleted: {error}", host=self._api.host
                ) from error

    def _watch_until(self, name: str, states: set[str], within_s: float, stop: StopToken) -> str | None:
        """Follow the status until one of the states; None where the time ran out. Re-lists after a 410 or a drop."""
        deadline = self._clock() + within_s
        version, drops = "", 0
        while (left_s := deadline - self._clock()) > 0:
            stop.check()
            try:
                if not version:
                    found = self._get(name)
                    version = found["metadata"]["resourceVersion"]
                    if (state := _state(found, name)) in states:
                        return state
                timeout_s = max(1, min(WATCH_S, math.ceil(left_s)))
                for event in self._api.watch(
                    f"{GROUP}/simulations", version=version, name=name, timeout_s=timeout_s
                ):
                    drops = 0
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] == "DELETED":
                        raise SimulationNotFound(f"{name} was deleted while it ran", simulation=name)
                    if event["type"] != "BOOKMARK" and (state := _state(event["object"], name)) in states:
                        return state
                    if self._clock() >= deadline or stop.wait(0):
                        break
                self._lease.renew(stop)
            except KubeError as error:
                drops += 1
                if error.code not in (0, GONE) or drops > DROPS_MAX:
                    raise SimulationFailed(
                        f"{self._api.host}: watching {name} failed: {error}", simulation=name
                    ) from error
                version = ""
                stop.wait(min(0.05 * drops, 1.0))
        return None

    def _get(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.call(
                "get", f"{GROUP}/simulations/{name}", method="GET", stop=self._stop
            )
        except KubeError as error:
            if error.code == NOT_FOUND:
                raise SimulationNotFound(f"{name} was deleted while it ran", simulation=name) from error
            raise
        return found

    def _delete_and_wait(self, name: str) -> None:
        path = f"{GROUP}/simulations/{name}"
        if name in self._is_config_map:
            path = f"/api/v1/namespaces/{self._options.namespace}/configmaps/{name}"
        deadline = self._clock() + self._options.delete_s_max
        patience = StopToken()
        try:
            self._api.call("delete", path, method="DELETE", stop=patience)
            while self._clock() < deadline:
                self._api.call("get", path, method="GET", stop=patience)
                patience.wait(0.1)
        except KubeError as error:
            if error.code == NOT_FOUND:
                return
            raise SimulationFailed(
                f"{self._api.host}: {name} cannot be deleted: {error}", simulation=name
            ) from error
        raise SimulationFailed(
            f"{name} is still there {self._options.delete_s_max:g} s after its deletion", simulation=name
        )

    def _sleep(self, seconds: float, stop: StopToken) -> None:
        deadline = self._clock() + seconds
        while (left_s := deadline - self._clock()) > 0:
            if stop.wait(min(left_s, WATCH_S)):
                stop.check()
            self._lease.renew(stop)

    def _known(self, name: str) -> SimulationSpec:
        if name not in self._specs:
            raise SimulationNotFound(f"this driver created no {name}", simulation=name)
        return self._specs[name]

    def _virtual(self, namespace: str) -> str:
        prefix = self._options.replay.virtual_prefix
        return namespace if namespace.startswith(f"{prefix}-") else f"{prefix}-{namespace}"


def _state(found: dict[str, Any], name: str) -> str:
    state = (found.get("status") or {}).get("state", "")
    if state == "Failed":
        raise SimulationFailed(
            f"{name}: SimKube says that it failed; `kubectl describe simulation {name}` says why",
            simulation=name,
        )
    return str(state)


__all__ = ["MANAGED_BY", "SimKubeDriver", "SimKubeOptions", "connect"]
