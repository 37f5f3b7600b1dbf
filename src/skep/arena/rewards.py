"""Rewards by formula; each reports its terms, and their sum, clamped where the formula says so, is the reward.

Let r = ready, p = pending, n = total, t = target, over = max(0, n − t), under = max(0, t − n); *goal* is
r = n = t and p = 0. `clamp` bounds to [0, 1].

    base        1 at the goal, else 0
    shaped      1 at the goal, else −0.1·|r − t| − 0.05·p − (0.15·over or 0.08·under), clamped to [−1, 1]
    scale       1 at the goal, else −0.02·p/t − (0.07·over/t or 0.03·under/t), clamped to [−1, 1]
    cost_aware  cost = 0.45·cpu_excess + 0.45·mem_excess + 0.60·min(1, over/t);
                goal 1 − 0.6·cost; r ≥ t and p = 0: 0.9 − 0.6·cost;
                else clamp(r/t)² − 0.85·clamp(p/t) − 0.75·under/t − 0.6·cost; clamped to [−1, 1]
    max_punish  base − 0.5 for each of CPU, memory and replicas that lies above its safeguard

An excess is clamp(now/reference − 1): how far the pod asks for more than the reference that the scenario gives.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from skep.arena.observation import Observation
from skep.arena.safeguards import Safeguards
from skep.arena.workload import Resources
from skep.errors.arena import UnknownName


class RewardInput(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reward may look at. `reference` is what the workload should ask for, where it is known."""

    observation: Observation
    resources: Resources
    target: int
    reference: Resources | None = None
    safeguards: Safeguards = Safeguards()


class Reward(msgspec.Struct, frozen=True):
    """A reward and the terms that it is made of."""

    value: float
    terms: dict[str, float]


RewardFunction = Callable[[RewardInput], Reward]


def _clamp(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return max(low, min(high, value))


def _sum(terms: Mapping[str, float]) -> Reward:
    kept = {name: round(value, 12) + 0.0 for name, value in terms.items()}
    return Reward(_clamp(round(sum(kept.values()), 12), -1.0, 1.0), kept)


def base(given: RewardInput) -> Reward:
    """1 at the goal, else 0."""
    value = 1.0 if given.observation.is_goal(given.target) else 0.0
    return Reward(value, {"goal": value})


def shaped(given: RewardInput) -> Reward:
    """1 at the goal, else penalties for distance, pending pods and a wrong number of pods."""
    seen, target = given.observation, given.target
    if seen.is_goal(target):
        return Reward(1.0, {"goal": 1.0})
    return _sum(
        {
            "distance": -0.1 * abs(seen.ready - target),
            "pending": -0.05 * seen.pending,
            "over": -0.15 * max(0, seen.total - target),
            "under": -0.08 * max(0, target - seen.total),
        }
    )


def scale(given: RewardInput) -> Reward:
    """1 at the goal, else small penalties relative to the target."""
    seen, target = given.observation, given.target
    if seen.is_goal(target):
        return Reward(1.0, {"goal": 1.0})
    share = 1 / max(1, target)
    return _sum(
        {
            "pending": -0.02 * seen.pending * share,
            "over": -0.07 * max(0, seen.total - target) * share,
            "under": -0.03 * max(0, target - seen.total) * share,
        }
    )


def _excess(now: int, reference: int) -> float:
    return _clamp(now / reference - 1) if reference > 0 else 0.0


def cost_aware(given: RewardInput) -> Reward:
    """Health first, then what it costs beyond the reference."""
    seen, target = given.observation, max(1, given.target)
    reference = given.reference or given.resources
    over = min(1.0, max(0, seen.total - given.target) / target)
    terms = {
        "cpu_cost": -0.6 * 0.45 * _excess(given.resources.cpu_m, reference.cpu_m),
        "memory_cost": -0.6 * 0.45 * _excess(given.resources.memory_bytes, reference.memory_bytes),
        "over_cost": -0.6 * 0.60 * over,
    }
    if seen.is_goal(given.target):
        return _sum({"goal": 1.0, **terms})
    if seen.ready >= given.target and seen.pending == 0:
        return _sum({"healthy": 0.9, **terms})
    return _sum(
        {
            "health": _clamp(seen.ready / target) ** 2,
            "pending": -0.85 * _clamp(seen.pending / target),
            "under": -0.75 * max(0, given.target - seen.total) / target,
            **terms,
        }
    )


def max_punish(given: RewardInput) -> Reward:
    """The base reward, less a half for each safeguard that the workload lies above."""
    bounds, now = given.safeguards, given.resources
    reward = base(given)
    terms = {
        **reward.terms,
        "cpu_above": -0.5 * (now.cpu_m > bounds.cpu_m_max),
        "memory_above": -0.5 * (now.memory_bytes > bounds.memory_bytes_max),
        "replicas_above": -0.5 * (now.replicas > bounds.replicas_max),
    }
    return Reward(sum(terms.values()), {name: value + 0.0 for name, value in terms.items()})


REWARDS: Final[Mapping[str, RewardFunction]] = {
    "base": base,
    "shaped": shaped,
    "scale": scale,
    "cost_aware": cost_aware,
    "max_punish": max_punish,
}


def find_reward(name: str) -> RewardFunction:
    """Return a reward by name. Raises: UnknownName."""
    try:
        return REWARDS[name]
    except KeyError:
        raise UnknownName(
            f"no reward {name!r}; there are {', '.join(REWARDS)}", known=tuple(REWARDS)
        ) from None
