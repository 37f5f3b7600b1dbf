"""The objects that the driver creates: a Simulation (`simkube.io/v1`), or a ConfigMap where there is no such kind."""

import math
from typing import Any

import msgspec

from skep.arena.driver import SimulationSpec

MANAGED_BY = {"app.kubernetes.io/managed-by": "skep-arena"}


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """SimKube's `lifecycleParams`, in milliseconds; it requires all four."""

    image_pull_ms: int = 0
    image_pull_jitter_ms: int = 0
    pod_startup_ms: int = 0
    pod_startup_jitter_ms: int = 0


class ReplayDriver(msgspec.Struct, frozen=True, kw_only=True):
    """SimKube's own driver pod. `trace_url` may hold `{name}`, the simulation, and `{file}`, the trace's file name."""

    image: str = "quay.io/appliedcomputing/sk-driver:v2.4.1"
    namespace: str = "simkube"
    port: int = 8888
    trace_url: str = "file:///data/{file}"
    args: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    virtual_prefix: str = "virtual"


def simulation(
    spec: SimulationSpec,
    driver: ReplayDriver,
    delays: Delays,
    *,
    speed: float,
    repetitions: int,
    further: dict[str, Any],
) -> dict[str, Any]:
    """Return the Simulation for a spec; times are whole seconds, as SimKube wants them."""
    file = spec.trace_path.name if spec.trace_path else f"{spec.name}.msgpack"
    replay: dict[str, Any] = {
        "image": driver.image,
        "namespace": driver.namespace,
        "port": driver.port,
        "tracePath": driver.trace_url.format(name=spec.name, file=file),
        "virtualNsPrefix": driver.virtual_prefix,
    }
    if driver.args:
        replay["args"] = list(driver.args)
    if driver.secrets:
        replay["secrets"] = list(driver.secrets)
    return {
        "apiVersion": "simkube.io/v1",
        "kind": "Simulation",
        "metadata": {"name": spec.name, "labels": dict(MANAGED_BY)},
        "spec": {
            "driver": replay,
            "duration": f"+{math.ceil(spec.duration_s)}s",
            "speed": speed,
            "repetitions": repetitions,
            "lifecycleParams": {
                "imagePullDelay": delays.image_pull_ms,
                "imagePullJitter": delays.image_pull_jitter_ms,
                "podStartupDelay": delays.pod_startup_ms,
                "podStartupJitter": delays.pod_startup_jitter_ms,
            },
            **{name: value for name, value in further.items() if value},
        },
    }


def config_map(spec: SimulationSpec, wanted: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Return a ConfigMap that says the same, for a cluster where something else replays it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": spec.name,
            "namespace": namespace,
            "labels": {**MANAGED_BY, "skep.dev/simulation": "true"},
        },
        "data": {"simulation.json": msgspec.json.encode(wanted).decode(), "trace-sha256": spec.trace.sha256},
    }
