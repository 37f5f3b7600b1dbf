"""Rewards by their formulas, with their terms."""

import pytest

from skep.arena.observation import Observation
from skep.arena.rewards import REWARDS, RewardInput, find_reward
from skep.arena.workload import Resources
from skep.errors.arena import UnknownName

GIB = 1 << 30


def given(
    ready: int, pending: int, total: int, *, cpu_m: int = 500, memory: int = GIB, replicas: int = 3
) -> RewardInput:
    return RewardInput(
        observation=Observation(ready=ready, pending=pending, total=total),
        resources=Resources(cpu_m=cpu_m, memory_bytes=memory, replicas=replicas),
        target=3,
        reference=Resources(cpu_m=500, memory_bytes=GIB, replicas=3),
    )


@pytest.mark.parametrize(
    ("name", "case", "value"),
    [
        ("base", given(3, 0, 3), 1.0),
        ("base", given(3, 0, 4), 0.0),
        ("base", given(2, 1, 3), 0.0),
        ("shaped", given(3, 0, 3), 1.0),
        ("shaped", given(2, 1, 3), -0.15),
        ("shaped", given(4, 0, 4), -0.25),
        ("shaped", given(1, 0, 1), -0.36),
        ("shaped", given(0, 30, 30), -1.0),
        ("scale", given(2, 1, 3), -0.02 / 3),
        ("scale", given(6, 0, 6), -0.07),
        ("scale", given(0, 0, 0), -0.03),
        ("cost_aware", given(3, 0, 3), 1.0),
        ("cost_aware", given(3, 0, 3, cpu_m=1000), 1 - 0.27),
        ("cost_aware", given(3, 0, 3, memory=2 * GIB), 1 - 0.27),
        ("cost_aware", given(6, 0, 6), 0.9 - 0.36),
        ("cost_aware", given(0, 3, 3), -0.85),
        ("cost_aware", given(0, 0, 0), -0.75),
        ("cost_aware", given(3, 0, 3, cpu_m=100), 1.0),
        ("max_punish", given(3, 0, 3), 1.0),
        ("max_punish", given(3, 0, 3, cpu_m=16_001, memory=33 * GIB, replicas=101), -0.5),
    ],
)
def test_formula(name: str, case: RewardInput, value: float) -> None:
    found = find_reward(name)(case)
    assert found.value == pytest.approx(value)
    assert max(-1.0, min(1.0, sum(found.terms.values()))) == pytest.approx(found.value)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_goal_is_the_best_that_can_be_had(name: str) -> None:
    best = find_reward(name)(given(3, 0, 3)).value
    for ready in range(6):
        for pending in range(3):
            assert find_reward(name)(given(ready, pending, ready + pending)).value <= best


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_target_zero_divides_by_nothing(name: str) -> None:
    case = RewardInput(
        observation=Observation(ready=0, pending=0, total=0),
        resources=Resources(cpu_m=0, memory_bytes=0, replicas=0),
        target=0,
    )
    assert find_reward(name)(case).value == 1.0


def test_unknown_reward_is_told() -> None:
    with pytest.raises(UnknownName, match="shaped"):
        find_reward("gold")
