"""The `recorded` driver: no cluster, the observations of an earlier run instead.

Simulations have deterministic names, so a step that repeats a recorded one finds its observation; one that departs
from the record is told so. It shows what another reward or another policy would have made of what was really seen.
"""

from pathlib import Path

import msgspec

from skep.arena.driver import DriverScope, SimulationSpec, StopToken
from skep.arena.observation import Observation
from skep.arena.records import STEPS_FILE
from skep.arena.workload import WorkloadRef
from skep.errors import InvalidInput
from skep.errors.arena import DriverUnavailable, ObservationFailed, SimulationFailed, SimulationNotFound


class _Seen(msgspec.Struct):
    """What this driver needs of a record."""

    sim_name: str
    observation: Observation | None = None
    sim_duration_s: float | None = None
    error: dict[str, str] | None = None


class RecordedDriver(DriverScope):
    """Replays a run folder, or one `step.jsonl`. Of a simulation that was run twice, the last record counts."""

    name = "recorded"

    def __init__(self, bundle: Path) -> None:
        path = bundle / STEPS_FILE if bundle.is_dir() else bundle
        self._bundle = path
        self._seen: dict[str, _Seen] = {}
        self._alive: set[str] = set()
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    self._take(line, number)
        except OSError as error:
            raise DriverUnavailable(f"{path}: no records to replay: {error.strerror}") from error

    def _take(self, line: bytes, number: int) -> None:
        try:
            seen = msgspec.json.decode(line, type=_Seen)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{self._bundle}:{number}: no step record: {error}") from error
        self._seen[seen.sim_name] = seen

    def create(self, spec: SimulationSpec) -> str:
        """Find the recorded simulation. Raises: SimulationNotFound where the run went another way."""
        if spec.name not in self._seen:
            raise SimulationNotFound(
                f"{self._bundle} holds no {spec.name}: the trace, the target, the seed or the actions differ",
                simulation=spec.name,
            )
        self._alive.add(spec.name)
        return spec.name

    def wait(self, name: str, duration_s: float, stop: StopToken) -> float:
        """Return at once, with the time that passed then."""
        stop.check()
        seen = self._found(name)
        if seen.sim_duration_s is None:
            raise SimulationFailed(f"{name} failed when it was recorded: {seen.error}", simulation=name)
        return min(duration_s, seen.sim_duration_s)

    def observe(self, name: str, workload: WorkloadRef) -> Observation:
        """Return what was seen. Raises: ObservationFailed where nothing was."""
        seen = self._found(name)
        if seen.observation is None:
            raise ObservationFailed(
                f"{name}: {workload.name} could not be observed then: {seen.error}", simulation=name
            )
        return seen.observation

    def delete(self, name: str) -> None:
        """Forget that it was begun."""
        self._alive.discard(name)

    def _found(self, name: str) -> _Seen:
        if name not in self._alive:
            raise SimulationNotFound(f"{name} was not created in this driver", simulation=name)
        return self._seen[name]
