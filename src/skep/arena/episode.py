"""An episode: steps, each on the trace that the one before left, until the goal, a floor on the return, or a bound."""

import contextlib
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
from skep.arena.workload import WorkloadRef, find_resources

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
    find_resources(current, WorkloadRef(namespace, deployment, options.kind, options.container))
    results: list[StepResult] = []
    ended_by, return_ = "bound", 0.0
    with contextlib.ExitStack() as owned:
        running = driver or owned.enter_context(EmbeddedDriver())
        kept = records or owned.enter_context(Records(options.workspace / RUNS))
        for step in range(options.steps_max):
            results.append(
                one_step(
                    current,
                    namespace,
                    deployment,
                    target,
                    duration_s,
                    chosen,
                    reward,
                    seed,
                    running,
                    options=msgspec.structs.replace(options, step=step, run_id=run_id),
                    records=kept,
                    stop=stop,
                )
            )
            current = results[-1].trace_out
            return_ += results[-1].reward.value
            if results[-1].is_goal or return_ <= return_floor:
                ended_by = "goal" if results[-1].is_goal else "floor"
                break
    return EpisodeResult(
        run_id=run_id,
        steps=tuple(results),
        return_=return_,
        is_solved=ended_by == "goal",
        ended_by=ended_by,
        trace_out=current,
    )
