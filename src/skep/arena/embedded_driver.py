"""The `embedded` driver: simulations on virtual time in this process, forked from a cluster that stands ready.

A trace's first event is second 0. Its pod life cycles say how long a workload's pods run.
"""

from collections.abc import Callable, Sequence
from typing import Final

from skep.arena.driver import DriverScope, SimulationSpec, StopToken
from skep.arena.embedded import EmbeddedCluster
from skep.arena.manifests import parse
from skep.arena.nodes import DEFAULT_NODES, NodePlan, node_manifests
from skep.arena.objects import Node
from skep.arena.observation import Observation
from skep.arena.profile import Profile
from skep.arena.replay import Replay
from skep.arena.trace.trace import Trace
from skep.arena.workload import WorkloadRef
from skep.errors.arena import (
    ObjectNotFound,
    ObservationFailed,
    SimulationExists,
    SimulationFailed,
    SimulationNotFound,
    TraceInvalid,
)

SIMULATIONS_MAX: Final = 64
"""Simulations that may be alive at once in one driver."""


class EmbeddedDriver(DriverScope):
    """Simulates on nodes that it is made with; a trace that applies nodes of its own adds them."""

    name = "embedded"

    def __init__(self, nodes: Sequence[NodePlan] = DEFAULT_NODES, *, profile: Profile | None = None) -> None:
        parsed = [parse(manifest) for manifest in node_manifests(tuple(nodes))]
        self._nodes = [node for node in parsed if isinstance(node, Node)]
        self._profile = profile or Profile(explains=False)
        self._replays: dict[str, Replay] = {}

    def create(self, spec: SimulationSpec) -> str:
        """Start a simulation at second 0. Raises: SimulationExists, SimulationFailed."""
        if spec.name in self._replays:
            raise SimulationExists(
                f"a simulation {spec.name} is running in this driver", simulation=spec.name
            )
        if len(self._replays) >= SIMULATIONS_MAX:
            raise SimulationFailed(f"{SIMULATIONS_MAX} simulations are alive in this driver; delete some")
        self._replays[spec.name] = self._replay(spec.trace, spec.seed)
        return spec.name

    def wait(self, name: str, duration_s: float, stop: StopToken) -> float:
        """Let virtual time pass to `duration_s`; returns where it stands."""
        replay = self._found(name)
        try:
            replay.run_until(duration_s, stop.check)
        except TraceInvalid as error:
            raise SimulationFailed(f"{name}: {error}", simulation=name) from error
        return replay.cluster.now_s

    def observe(self, name: str, workload: WorkloadRef) -> Observation:
        """Count a workload's pods. Raises: ObservationFailed."""
        return observe_workload(self._found(name).cluster, workload)

    def delete(self, name: str) -> None:
        """Forget a simulation."""
        self._replays.pop(name, None)

    def close(self) -> None:
        """Forget every simulation."""
        self._replays.clear()

    def simulator(self, spec: SimulationSpec) -> Callable[[Trace], Observation]:
        """Return what simulates other traces as this spec is."""
        return self.simulator_of(spec.workload, spec.duration_s, spec.seed)

    def simulator_of(
        self, workload: WorkloadRef, duration_s: float, seed: int
    ) -> Callable[[Trace], Observation]:
        """Return a function from a trace to what is seen of a workload at the end."""

        def simulate(trace: Trace) -> Observation:
            replay = self._replay(trace, seed)
            replay.run_until(duration_s)
            return observe_workload(replay.cluster, workload)

        return simulate

    def timeline(
        self, trace: Trace, workload: WorkloadRef, duration_s: float, seed: int, samples: int
    ) -> list[tuple[float, Observation]]:
        """Return what is seen at `samples` moments from the first second to the end."""
        replay = self._replay(trace, seed)
        seen: list[tuple[float, Observation]] = []
        for number in range(1, samples + 1):
            at_s = duration_s * number / samples
            replay.run_until(at_s)
            seen.append((at_s, observe_workload(replay.cluster, workload, is_absent_empty=True)))
        return seen

    def _replay(self, trace: Trace, seed: int) -> Replay:
        return Replay(EmbeddedCluster(self._nodes, seed, self._profile), trace)

    def _found(self, name: str) -> Replay:
        try:
            return self._replays[name]
        except KeyError:
            raise SimulationNotFound(f"this driver runs no {name}", simulation=name) from None


def observe_workload(
    cluster: EmbeddedCluster, workload: WorkloadRef, *, is_absent_empty: bool = False
) -> Observation:
    """Return an observation. Raises: ObservationFailed where there is no such workload (yet, or any more)."""
    try:
        return cluster.observe(workload.namespace, workload.name)
    except ObjectNotFound as error:
        if is_absent_empty:
            return Observation(ready=0, pending=0, total=0, nodes=cluster.usage())
        raise ObservationFailed(
            f"{workload.namespace}/{workload.name} is not in the cluster: the trace deleted it, or applies it later",
            deployment=workload.name,
        ) from error
