"""The seam between a step and whatever simulates the cluster.

`embedded` runs on virtual time in this process, `simkube` on a real Kubernetes cluster, `recorded` replays what a
run saw. A driver lives from its making to `close`; each simulation from `create` to `delete`.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from skep.arena.observation import Observation
from skep.arena.trace.trace import Trace
from skep.arena.workload import WorkloadRef
from skep.errors.arena import StepCancelled


class SimulationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver is asked to simulate. `trace_path` is where the trace's bytes stand as a file, if they do."""

    name: str
    trace: Trace
    workload: WorkloadRef
    duration_s: float
    seed: int = 0
    trace_path: Path | None = None


class StopToken:
    """Asks a step, from another thread or a signal handler, to stop; the step still cleans up."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def stop(self) -> None:
        """Ask; asking again changes nothing."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep at most this long; tell whether stopping was asked for."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise StepCancelled where stopping was asked for."""
        if self._event.is_set():
            raise StepCancelled("the step was asked to stop; its simulation was deleted")


class Driver(Protocol):
    """Something that simulates a cluster. `name` is what `--driver` calls it."""

    name: str

    def create(self, spec: SimulationSpec) -> str:
        """Start a simulation; return its name.

        Raises: DriverUnavailable, SimulationExists, SimulationFailed. After a failure `delete` is still called.
        """
        ...

    def wait(self, name: str, duration_s: float, stop: StopToken) -> float:
        """Let it run for this long (virtual or real seconds); return the seconds that passed in the simulation.

        Raises: SimulationFailed, SimulationNotFound, StepCancelled, DriverUnavailable.
        """
        ...

    def observe(self, name: str, workload: WorkloadRef) -> Observation:
        """Look at the pods of a workload. Raises: ObservationFailed, SimulationNotFound; never returns guesses."""
        ...

    def delete(self, name: str) -> None:
        """Remove a simulation and what it made; one that is gone, or never came to be, is no error."""
        ...

    def close(self) -> None:
        """Free what the driver holds; simulations that are left are deleted."""
        ...


class DriverScope:
    """`with` for drivers: leaving closes. Drivers inherit it; the seam does not ask for it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free what the driver holds."""


DriverFactory = Callable[[], Driver]
