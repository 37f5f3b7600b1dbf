"""Statistics of a sweep: how often each policy solves, in how many steps, with what return, and how sure that is.

Solve rates have Wilson's 95 % interval; means have a percentile bootstrap of 2,000 seeded resamples over trials.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from skep.arena.sweep import Results
from skep.arena.trial import TrialResult

Z95: Final = 1.959963984540054
RESAMPLES: Final = 2000


class Interval(msgspec.Struct, frozen=True):
    """An estimate and its 95 % confidence interval; all None where there is nothing to estimate from."""

    value: float | None
    low: float | None
    high: float | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one part of the scenarios (`training` or `held-out`)."""

    policy: str
    part: str
    trials: int
    solved: int
    failed: int
    solve_rate: Interval
    steps_to_solve: Interval
    return_: Interval = msgspec.field(name="return")
    return_by_step: tuple[float, ...] = ()


def wilson(successes: int, trials: int) -> Interval:
    """Return Wilson's score interval of a proportion."""
    if not trials:
        return Interval(None, None, None)
    share, z2 = successes / trials, Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(round(share, 6), round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6))


def bootstrap(values: Sequence[float]) -> Interval:
    """Return a mean with its percentile bootstrap interval; the same values give the same interval."""
    if not values:
        return Interval(None, None, None)
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(0)
    means = data[rng.integers(len(data), size=(RESAMPLES, len(data)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(round(float(data.mean()), 6), round(float(low), 6), round(float(high), 6))


def standings(results: Results) -> list[Standing]:
    """Return every policy's standing, the training scenarios first, the best policy first."""
    found = [
        _standing(policy, part, trials)
        for part in ("training", "held-out")
        for policy in results.plan.policies
        if (trials := [one for one in results.trials if one.trial.policy == policy and _part(one) == part])
    ]
    return sorted(
        found,
        key=lambda one: (one.part != "training", -(one.solve_rate.value or 0), -(one.return_.value or 0)),
    )


def _part(result: TrialResult) -> str:
    return "held-out" if result.is_held_out else "training"


def _standing(policy: str, part: str, trials: list[TrialResult]) -> Standing:
    solved = [one for one in trials if one.is_solved]
    return Standing(
        policy=policy,
        part=part,
        trials=len(trials),
        solved=len(solved),
        failed=sum(one.error is not None for one in trials),
        solve_rate=wilson(len(solved), len(trials)),
        steps_to_solve=bootstrap([one.steps for one in solved]),
        return_=bootstrap([one.return_ for one in trials]),
        return_by_step=reward_curve(trials),
    )


def reward_curve(trials: list[TrialResult]) -> tuple[float, ...]:
    """Return the mean reward at each step; an episode that ended keeps its last reward."""
    played = [one for one in trials if one.views]
    if not played:
        return ()
    length = max(one.steps for one in played)
    rows = [
        [view.reward for view in one.views] + [one.views[-1].reward] * (length - one.steps) for one in played
    ]
    return tuple(round(float(value), 6) for value in np.mean(np.asarray(rows, dtype=np.float64), axis=0))
