"""An episode: steps, each on the trace that the one before left, until the goal, a floor on the return, or a bound."""

from pathlib import Path
from typing import Final

import msgspec

from skep.arena.driver import Driver, StopToken
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.ids import deterministic_id
from skep.arena.policies.base import Policy
from skep.arena.policies.registry import make_policy
from skep.arena.records import Records
from skep.arena.runner import RUNS, StepOptions, StepResult, one_step
from skep.arena.trace.check import check_trace
from skep.arena.trace.trace import Trace, read_trace

RETURN_FLOOR: Final = -20.0


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an episode. `ended_by` is `goal`, `floor` or `bound`; `return_` is the sum of the rewards."""

    run_id: str
    steps: tuple[StepResult, ...]
    return_: float
    is_solved: bool
    ended_by: str
    trace_out: Trace


def run_episode(
    trace: Path | str | Trace,
    namespace: str,
    deployment: str,
    target: int,
    duration_s: float = 60.0,
    policy: str | Policy = "heuristic",
    reward: str = "shaped",
    seed: int = 0,
    driver: Driver | None = None,
    *,
    options: StepOptions | None = None,
    return_floor: float = RETURN_FLOOR,
    records: Records | None = None,
    stop: StopToken | None = None,
) -> EpisodeResult:
    """Run an episode of at most `options.steps_max` steps. Raises: what `one_step` raises, at the step that does."""
    options = options or StepOptions()
    chosen = make_policy(policy) if isinstance(policy, str) else policy
    chosen.start(seed)
    if isinstance(trace, Trace):
        current = trace
    else:
        current = read_trace(Path(trace))
        check_trace(current)
    run_id = options.run_id or "run-" + deterministic_id(
        f"{current.sha256}/{chosen.name}/{reward}", namespace, deployment, target, seed, -1
    )
    owned_driver = EmbeddedDriver() if driver is None else None
    owned_records = Records(options.workspace / RUNS) if records is None else None
    results: list[StepResult] = []
    try:
        for step in range(options.steps_max):
            result = one_step(
                current,
                namespace,
                deployment,
                target,
                duration_s,
                chosen,
                reward,
                seed,
                driver or owned_driver,
                options=msgspec.structs.replace(options, step=step, run_id=run_id),
                records=records or owned_records,
                stop=stop,
            )
            results.append(result)
            current = result.trace_out
            if result.is_goal or sum(one.reward.value for one in results) <= return_floor:
                break
    finally:
        if owned_driver is not None:
            owned_driver.close()
        if owned_records is not None:
            owned_records.close()
    return _result(run_id, results, current)


def _result(run_id: str, results: list[StepResult], trace: Trace) -> EpisodeResult:
    is_solved = bool(results) and results[-1].is_goal
    is_bound = bool(results) and results[-1].record.step + 1 >= len(results)
    return EpisodeResult(
        run_id=run_id,
        steps=tuple(results),
        return_=sum(one.reward.value for one in results),
        is_solved=is_solved,
        ended_by="goal" if is_solved else "bound" if is_bound else "floor",
        trace_out=trace,
    )
