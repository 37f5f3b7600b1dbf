"""One step: simulate a trace, look, decide, edit a copy of the trace, reward, record, and always clean up.

    pre_start hooks → create → post_start hooks → wait → observe → decide → safeguards → edit → reward → record
    and in every case: pre_stop hooks → delete → post_stop hooks

A trace that cannot be read, or does not hold the workload, raises before anything is written or created. After
that, a step that fails is recorded as failed and raises. The functions below are the step's joints: a test, or
another runner, can watch or replace each.
"""

import contextlib
from pathlib import Path
from typing import Any

from skep.arena.actions import ActionMask, apply_action
from skep.arena.driver import Driver, SimulationSpec, StopToken
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.hooks import run_hooks
from skep.arena.ids import deterministic_id, simulation_name
from skep.arena.lookahead import make_lookahead
from skep.arena.observation import Observation, state_vector
from skep.arena.policies.base import Decision, Policy, Situation
from skep.arena.policies.registry import make_policy
from skep.arena.policies.simple import simple_policy
from skep.arena.records import Records, StepRecord, update_summary, write_step_record
from skep.arena.rewards import RewardInput, find_reward
from skep.arena.scratch import save_trace
from skep.arena.step import UNKNOWN, StepOptions, StepResult, status_of, told
from skep.arena.trace.check import check_trace
from skep.arena.trace.trace import Trace, read_trace
from skep.arena.workload import WorkloadRef, find_resources
from skep.errors import InvalidInput
from skep.errors.arena import PolicyFailed

RUNS, SCRATCH = "runs", ".tmp"
__all__ = [
    "StepOptions",
    "StepResult",
    "create_simulation",
    "delete_simulation",
    "deterministic_id",
    "observe",
    "one_step",
    "run_hooks",
    "simple_policy",
    "update_summary",
    "wait_fixed",
    "write_step_record",
]


def create_simulation(driver: Driver, spec: SimulationSpec) -> str:
    """Start a simulation. Raises: what the driver raises."""
    return driver.create(spec)


def wait_fixed(driver: Driver, name: str, duration_s: float, stop: StopToken) -> float:
    """Let a simulation run for this long; return the seconds that passed in it."""
    return driver.wait(name, duration_s, stop)


def observe(driver: Driver, name: str, workload: WorkloadRef) -> Observation:
    """Look at a workload's pods; an observation that cannot be made is an error, never zeros."""
    return driver.observe(name, workload)


def delete_simulation(driver: Driver, name: str) -> None:
    """Remove a simulation, however far it came."""
    driver.delete(name)


def one_step(
    trace: Path | str | Trace,
    namespace: str,
    deployment: str,
    target: int,
    duration_s: float = 60.0,
    policy: str | Policy = "simple",
    reward: str = "base",
    seed: int = 0,
    driver: Driver | None = None,
    *,
    options: StepOptions | None = None,
    records: Records | None = None,
    stop: StopToken | None = None,
) -> StepResult:
    """Run one step and return what came of it.

    Without `driver` the embedded one with its default nodes is used; without `records` the step opens
    `runs/` itself and everything is on disk when it returns.

    Raises: TraceNotFound, TraceUnreadable (and below), DeploymentNotFound, UnknownName before anything is made;
    then DriverUnavailable, SimulationFailed, ObservationFailed, PolicyFailed, HookFailed, StepCancelled,
    RecordsUnwritable, each after the simulation was deleted.
    """
    options = options or StepOptions()
    if target < 0 or duration_s <= 0:
        raise InvalidInput(
            f"target {target} and duration {duration_s} s: not negative, and more than nothing"
        )
    loaded = trace if isinstance(trace, Trace) else read_trace(Path(trace))
    if not isinstance(trace, Trace):
        check_trace(loaded)
    joined = _Step(
        trace=loaded,
        trace_in=loaded.name if isinstance(trace, Trace) else str(trace),
        workload=WorkloadRef(namespace, deployment, options.kind, options.container),
        target=target,
        duration_s=duration_s,
        policy=make_policy(policy) if isinstance(policy, str) else policy,
        reward_name=reward,
        seed=seed,
        options=options,
    )
    if isinstance(policy, str):
        joined.policy.start(seed)
    joined.check()
    with contextlib.ExitStack() as owned:
        driver = driver or owned.enter_context(EmbeddedDriver())
        records = records or owned.enter_context(Records(options.workspace / RUNS))
        return joined.run(driver, records, stop or StopToken())


class _Step:
    """One step under way: what it is about, and how far it came, so that a failure can be recorded too."""

    def __init__(
        self,
        *,
        trace: Trace,
        trace_in: str,
        workload: WorkloadRef,
        target: int,
        duration_s: float,
        policy: Policy,
        reward_name: str,
        seed: int,
        options: StepOptions,
    ) -> None:
        self.trace, self.trace_in, self.workload = trace, trace_in, workload
        self.target, self.duration_s, self.seed = target, duration_s, seed
        self.policy, self.reward_name, self.options = policy, reward_name, options
        subject = (workload.namespace, workload.name, target, seed)
        self.name = simulation_name(workload.name, deterministic_id(trace.sha256, *subject, options.step))
        self.run_id = options.run_id or "run-" + deterministic_id(
            f"{trace.sha256}/{policy.name}/{reward_name}", *subject, -1
        )
        self.known: dict[str, Any] = {}

    def check(self) -> None:
        """Raise what can be known to be wrong before anything is made."""
        self._reward = find_reward(self.reward_name)
        self._resources = find_resources(self.trace, self.workload)

    def run(self, driver: Driver, records: Records, stop: StopToken) -> StepResult:
        """Do it; record it, also when it failed; delete the simulation, also when it could not be recorded."""
        try:
            try:
                result = self._attempt(driver, stop)
            except BaseException as error:
                records.append(self._record(driver, error))
                raise
            records.append(result.record)
            return result
        finally:
            self._clean_up(driver)

    def _attempt(self, driver: Driver, stop: StopToken) -> StepResult:
        environment = self._environment()
        run_hooks("pre_start", self.options.hooks, environment)
        stop.check()
        spec = self._spec(self.trace)
        self.name = create_simulation(driver, spec)
        run_hooks("post_start", self.options.hooks, environment)
        self.known["sim_duration_s"] = wait_fixed(driver, self.name, self.duration_s, stop)
        seen = self.known["observation"] = observe(driver, self.name, self.workload)
        decision = self._decide(driver, spec, seen)
        trace_out, info = apply_action(self.trace, self.workload, decision.action, self.options.safeguards)
        self.known["action_info"] = info
        if self.options.is_trace_saved:
            self.known["trace_out"] = save_trace(trace_out, self.options.workspace / SCRATCH, self.name)
        reward = self._reward(
            RewardInput(
                observation=seen,
                resources=self._resources,
                target=self.target,
                reference=self.options.reference,
                safeguards=self.options.safeguards,
            )
        )
        self.known |= {"reward": reward.value, "reward_terms": reward.terms}
        return StepResult(
            record=self._record(driver, None),
            observation=seen,
            resources=self._resources,
            decision=decision,
            action_info=info,
            reward=reward,
            trace_out=trace_out,
            is_goal=seen.is_goal(self.target),
        )

    def _decide(self, driver: Driver, spec: SimulationSpec, seen: Observation) -> Decision:
        options = self.options
        state = self.known["state"] = state_vector(seen, self._resources, self.target)
        situation = Situation(
            observation=seen,
            resources=self._resources,
            target=self.target,
            state=state,
            step=options.step,
            steps_max=options.steps_max,
            seed=self.seed,
            actions=options.actions,
            mask=lambda: ActionMask(self.trace, self.workload, options.safeguards, options.actions),
            lookahead=make_lookahead(
                driver,
                spec,
                self.target,
                self._reward,
                options.safeguards,
                options.reference,
                options.actions,
            ),
            namespace=self.workload.namespace,
            deployment=self.workload.name,
        )
        decision = self.policy.decide(situation)
        self.known |= {"action": decision.action, "decision_reason": decision.reason}
        if decision.action not in options.actions:
            raise PolicyFailed(
                f"policy {self.policy.name} chose {decision.action!r}; it may choose {', '.join(options.actions)}",
                policy=self.policy.name,
            )
        return decision

    def _spec(self, trace: Trace) -> SimulationSpec:
        return SimulationSpec(
            name=self.name,
            trace=trace,
            workload=self.workload,
            duration_s=self.duration_s,
            seed=self.seed,
            trace_path=Path(self.trace_in),
        )

    def _environment(self) -> dict[str, str]:
        return {
            "SKEP_SIMULATION": self.name,
            "SKEP_NAMESPACE": self.workload.namespace,
            "SKEP_DEPLOYMENT": self.workload.name,
        }

    def _clean_up(self, driver: Driver) -> None:
        environment = self._environment()
        try:
            run_hooks("pre_stop", self.options.hooks, environment)
        finally:
            try:
                delete_simulation(driver, self.name)
            finally:
                run_hooks("post_stop", self.options.hooks, environment)

    def _record(self, driver: Driver, error: BaseException | None) -> StepRecord:
        known = {**UNKNOWN, **self.known}
        if error is not None:
            known |= {"reward": None, "reward_terms": {}}
        return StepRecord(
            run_id=self.run_id,
            step=self.options.step,
            sim_name=self.name,
            namespace=self.workload.namespace,
            deployment=self.workload.name,
            target=self.target,
            trace_in=self.trace_in,
            trace_sha=self.trace.sha256,
            seed=self.seed,
            driver=driver.name,
            policy=self.policy.name,
            reward_name=self.reward_name,
            duration_s=self.duration_s,
            status=status_of(error),
            error=told(error),
            **known,
        )
