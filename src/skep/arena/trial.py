"""One trial of a benchmark: a policy on a scenario with a seed. The same trial has the same result, wherever it runs."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.episode import EpisodeResult, run_episode
from skep.arena.observation import Observation
from skep.arena.policies.registry import make_policy
from skep.arena.records import Records
from skep.arena.runner import StepOptions
from skep.arena.scenarios import Scenario, find_scenario
from skep.arena.trace.trace import Trace
from skep.errors.arena import PolicyFailed

SAMPLES = 24


class Trial(msgspec.Struct, frozen=True, order=True):
    """Which one. `options` are the policy's, as sorted pairs; `cluster_seed` seeds the cluster's delays and ties."""

    scenario: str
    policy: str
    seed: int
    reward: str = "shaped"
    options: tuple[tuple[str, str], ...] = ()
    is_sampled: bool = False

    @property
    def key(self) -> str:
        """A name that no other trial of a plan has."""
        return f"{self.scenario}/{self.policy}/{self.seed}"


class StepView(msgspec.Struct, frozen=True):
    """A step as a report shows it."""

    action: str
    reason: str
    changed: bool
    blocked: bool
    reward: float
    ready: int
    pending: int
    total: int
    cpu_m: int
    memory_bytes: int
    replicas: int


class Sample(msgspec.Struct, frozen=True):
    """What was seen at one moment of a simulation; `nodes` is each node's share of CPU and of memory."""

    at_s: float
    ready: int
    pending: int
    total: int
    nodes: tuple[tuple[str, float, float], ...] = ()


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a trial; `actions` changed the trace until the end was seen; `error` where the policy failed, which counts as not solved."""

    trial: Trial
    is_held_out: bool
    is_solved: bool
    ended_by: str
    steps: int
    actions: int
    return_: float = msgspec.field(name="return")
    views: tuple[StepView, ...] = ()
    first: tuple[Sample, ...] = ()
    last: tuple[Sample, ...] = ()
    error: str | None = None

    def key(self) -> str:
        """The trial's."""
        return self.trial.key


def run_trial(trial: Trial) -> TrialResult:
    """Run one trial. A policy that fails loses; anything else that fails raises."""
    scenario = find_scenario(trial.scenario)
    with (
        EmbeddedDriver(scenario.nodes) as driver,
        tempfile.TemporaryDirectory(prefix="skep-arena-") as folder,
    ):
        options = StepOptions(
            workspace=Path(folder),
            steps_max=scenario.steps_max,
            reference=scenario.reference,
            kind=scenario.plans[0].kind,
            is_trace_saved=False,
        )
        try:
            episode = _episode(trial, scenario, driver, options)
        except PolicyFailed as error:
            return _lost(trial, scenario, str(error))
        first = _samples(driver, scenario, scenario.trace, trial) if trial.is_sampled else ()
        last = _samples(driver, scenario, _last_seen(episode, scenario), trial) if trial.is_sampled else ()
    views = tuple(_view(step) for step in episode.steps)
    return TrialResult(
        trial=trial,
        is_held_out=scenario.is_held_out,
        is_solved=episode.is_solved,
        ended_by=episode.ended_by,
        steps=len(views),
        actions=sum(view.changed for view in (views[:-1] if episode.is_solved else views)),
        return_=round(episode.return_, 9),
        views=views,
        first=first,
        last=last,
    )


def _episode(trial: Trial, scenario: Scenario, driver: EmbeddedDriver, options: StepOptions) -> EpisodeResult:
    with Records(options.workspace / "runs") as records:
        return run_episode(
            scenario.trace,
            scenario.plans[0].namespace,
            scenario.plans[0].name,
            scenario.target,
            scenario.duration_s,
            make_policy(trial.policy, dict(trial.options)),
            trial.reward,
            trial.seed,
            driver,
            options=options,
            records=records,
        )


def _last_seen(episode: EpisodeResult, scenario: Scenario) -> Trace:
    """Return the trace that the last step looked at; what it decided at the goal came after."""
    return episode.steps[-2].trace_out if len(episode.steps) > 1 else scenario.trace


def _view(step: Any) -> StepView:
    seen, wants, info = step.observation, step.resources, step.action_info
    return StepView(
        step.decision.action,
        step.decision.reason,
        info.changed,
        info.blocked,
        round(step.reward.value, 9),
        seen.ready,
        seen.pending,
        seen.total,
        wants.cpu_m,
        wants.memory_bytes,
        wants.replicas,
    )


def _samples(driver: EmbeddedDriver, scenario: Scenario, trace: Trace, trial: Trial) -> tuple[Sample, ...]:
    timeline = driver.timeline(trace, scenario.workload, scenario.duration_s, trial.seed, SAMPLES)
    return tuple(_sample(at_s, seen) for at_s, seen in timeline)


def _sample(at_s: float, seen: Observation) -> Sample:
    nodes = tuple((node.name, round(node.cpu, 4), round(node.memory, 4)) for node in seen.nodes)
    return Sample(round(at_s, 3), seen.ready, seen.pending, seen.total, nodes)


def _lost(trial: Trial, scenario: Scenario, error: str) -> TrialResult:
    return TrialResult(
        trial=trial,
        is_held_out=scenario.is_held_out,
        is_solved=False,
        ended_by="policy failed",
        steps=0,
        actions=0,
        return_=0.0,
        error=error,
    )
