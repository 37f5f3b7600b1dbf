"""A sweep: many trials, placed anywhere, each result kept as it comes, so that a killed sweep goes on where it was.

A sweep's folder holds `plan.json` (what is swept), `trials.jsonl` (a whole line a trial, on disk at once) and, at
the end, `results.json`: sorted, so equal to the byte whatever the placement, the order, or the interruptions.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from skep.arena.placement import Placement
from skep.arena.records import locked
from skep.arena.scenarios import Scenario
from skep.arena.trial import Trial, TrialResult, run_trial
from skep.errors import Conflict, InvalidInput

PLAN_FILE, TRIALS_FILE, RESULTS_FILE = "plan.json", "trials.jsonl", "results.json"
FORMAT: Final = 1
TRIALS_MAX: Final = 1_000_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is swept: every scenario with every policy and every seed. The first seed's trials keep time series."""

    scenarios: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    reward: str = "shaped"
    policy_options: dict[str, dict[str, str]] = {}
    format: int = FORMAT

    def trials(self) -> list[Trial]:
        """Return every trial, in order."""
        if not (self.scenarios and self.policies and self.seeds):
            raise InvalidInput("a sweep needs at least one scenario, one policy and one seed")
        if len(self.scenarios) * len(self.policies) * len(self.seeds) > TRIALS_MAX:
            raise InvalidInput(f"more than {TRIALS_MAX} trials")
        return [
            Trial(
                scenario,
                policy,
                seed,
                self.reward,
                tuple(sorted(self.policy_options.get(policy, {}).items())),
                seed == self.seeds[0],
            )
            for scenario in self.scenarios
            for policy in self.policies
            for seed in self.seeds
        ]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A finished sweep: its plan, and each trial's result in the plan's order."""

    plan: Plan
    trials: tuple[TrialResult, ...]
    generated_by: str = "skep arena"


def make_plan(
    scenarios: Iterable[Scenario],
    policies: Iterable[str],
    seeds: Iterable[int],
    reward: str,
    policy_options: dict[str, dict[str, str]] | None = None,
) -> Plan:
    """Return a plan; what comes twice counts once."""
    return Plan(
        scenarios=tuple(dict.fromkeys(one.name for one in scenarios)),
        policies=tuple(dict.fromkeys(policies)),
        seeds=tuple(dict.fromkeys(seeds)),
        reward=reward,
        policy_options=policy_options or {},
    )


def run_sweep(
    plan: Plan,
    placement: Placement,
    folder: Path | None = None,
    on_result: Callable[[TrialResult], None] | None = None,
) -> Results:
    """Run what a plan asks for and is not in `folder` yet. Raises: Conflict where the folder is of another plan."""
    trials = plan.trials()
    found = {} if folder is None else _resume(plan, folder)
    for result in found.values():
        if on_result is not None:
            on_result(result)
    for result in placement.run(run_trial, [one for one in trials if one.key not in found]):
        found[result.key()] = result
        if folder is not None:
            _keep(result, folder)
        if on_result is not None:
            on_result(result)
    results = Results(plan=plan, trials=tuple(found[one.key] for one in trials))
    if folder is not None:
        _replace(folder / RESULTS_FILE, msgspec.json.encode(results, order="deterministic"))
    return results


def load_results(path: Path) -> Results:
    """Read a finished sweep's results. Raises: InvalidInput."""
    path = path / RESULTS_FILE if path.is_dir() else path
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInput(
            f"{path}: no results of a sweep: {error}; `skep arena bench --out FOLDER` makes them"
        ) from error


def _resume(plan: Plan, folder: Path) -> dict[str, TrialResult]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: no folder can be made there: {error.strerror}") from error
    wanted = msgspec.json.encode(plan, order="deterministic")
    with locked(folder):
        path = folder / PLAN_FILE
        if not path.exists():
            _replace(path, wanted)
        elif path.read_bytes() != wanted:
            raise Conflict(
                f"{folder} holds another sweep (see {PLAN_FILE}); choose another folder, or delete it"
            )
        known = {one.key for one in plan.trials()}
        return {one.key(): one for one in _kept(folder / TRIALS_FILE) if one.key() in known}


def _kept(path: Path) -> Iterator[TrialResult]:
    """Yield the whole lines; the half line of a killed sweep is cut off, its trial runs again."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    for line in data[:whole].splitlines():
        yield msgspec.json.decode(line, type=TrialResult)


def _keep(result: TrialResult, folder: Path) -> None:
    line = msgspec.json.encode(result, order="deterministic") + b"\n"
    with locked(folder):
        file = os.open(folder / TRIALS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
