"""Scaling: the table of its answers, and what holds whatever the load does."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import InvalidConfig
from skep.policy.scaling import (
    PoolDemand,
    Reason,
    Scaling,
    ScalingLimits,
    ScalingState,
    scale,
    wanted_replicas,
)

LIMITS = ScalingLimits(replicas_min=1, replicas_max=8)
"""Four slots each: high above 3.6 a replica, filled to 2.8."""


def demand(replicas: int, busy: int, queued: int = 0, slots: int = 4) -> PoolDemand:
    return PoolDemand(replicas=replicas, slots_per_replica=slots, busy=busy, queued=queued)


@pytest.mark.parametrize(
    ("state", "now", "after", "reason"),
    [
        # Where one fewer is not enough, and these are, nothing happens.
        (demand(2, 3), 0, 2, Reason.STEADY),
        (demand(2, 7), 0, 2, Reason.STEADY),
        # Above high: as many as fill the target share; the queue counts.
        (demand(2, 8), 0, 3, Reason.HIGH),
        (demand(2, 8, 4), 0, 5, Reason.HIGH),
        (demand(1, 4, 0), 0, 2, Reason.HIGH),
        (demand(2, 8, 900), 0, 8, Reason.HIGH),
        (demand(8, 32, 900), 0, 8, Reason.AT_MOST),
        # Fewer would do: not at once.
        (demand(4, 1), 0, 4, Reason.LOW),
        (demand(1, 0), 0, 1, Reason.STEADY),
        (demand(4, 8), 0, 4, Reason.LOW),
        # Bounds hold at once.
        (demand(0, 0), 0, 1, Reason.BOUNDS),
        (demand(12, 48), 0, 8, Reason.BOUNDS),
    ],
)
def test_one_look(state: PoolDemand, now: float, after: int, reason: Reason) -> None:
    found = scale(ScalingState(), state, LIMITS, now_s=now)
    assert (found.replicas, found.reason) == (after, reason)


def test_growing_again_waits_for_the_cooldown() -> None:
    first = scale(ScalingState(), demand(1, 4, 1), LIMITS, now_s=100)
    assert (first.replicas, first.reason) == (2, Reason.HIGH)
    hot = demand(2, 8, 10)
    assert scale(first.state, hot, LIMITS, now_s=114).reason is Reason.COOLING
    assert scale(first.state, hot, LIMITS, now_s=115).replicas == 7


def test_shrinking_waits_until_it_was_low_for_long_and_keeps_what_was_wanted_in_between() -> None:
    state = ScalingState()
    seen = []
    for now, busy in ((0, 2), (100, 7), (200, 1), (299, 0), (300, 0)):
        found = scale(state, demand(6, busy), LIMITS, now_s=now)
        state = found.state
        seen.append((found.replicas, found.reason))
    assert seen == [(6, Reason.LOW)] * 4 + [(3, Reason.LOW_FOR_LONG)]


def test_one_busy_moment_begins_the_wait_anew() -> None:
    low = scale(ScalingState(), demand(4, 1), LIMITS, now_s=0).state
    busy = scale(low, demand(4, 12), LIMITS, now_s=299).state
    assert scale(busy, demand(4, 1), LIMITS, now_s=301).reason is Reason.LOW


def test_an_idle_pool_goes_to_nothing_and_the_first_request_wakes_one() -> None:
    limits = ScalingLimits(replicas_min=0, replicas_max=3, down_after_s=60)
    low = scale(ScalingState(), demand(1, 0), limits, now_s=0)
    gone = scale(low.state, demand(1, 0), limits, now_s=60)
    assert (gone.replicas, gone.reason) == (0, Reason.LOW_FOR_LONG)
    assert scale(gone.state, demand(0, 0), limits, now_s=61).replicas == 0
    woken = scale(gone.state, demand(0, 0, 1), limits, now_s=62)
    assert (woken.replicas, woken.reason) == (1, Reason.HIGH)
    back = scale(ScalingState(grown_s=61), demand(0, 0, 1), limits, now_s=62)
    assert back.replicas == 1, "a pool of none never waits for a cooldown"


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas_min": -1},
        {"replicas_min": 3, "replicas_max": 2},
        {"replicas_min": 0, "replicas_max": 0},
        {"replicas_max": 10_001},
        {"target_share": 0},
        {"high_share": 0.6},
        {"high_share": math.inf},
        {"up_cooldown_s": -1},
        {"down_after_s": math.inf},
        {"target_share": math.nan},
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig, match="scaling"):
        ScalingLimits(**wrong)


DEMANDS = st.builds(
    PoolDemand,
    replicas=st.integers(0, 20),
    slots_per_replica=st.integers(1, 32),
    busy=st.integers(0, 700),
    queued=st.integers(0, 700),
)
STATES = st.builds(
    ScalingState,
    grown_s=st.floats(-1000, 0),
    low_since_s=st.none() | st.floats(-1000, 0),
    wanted_most=st.integers(0, 3),
)
BOUNDS = st.tuples(st.integers(0, 5), st.integers(5, 12)).map(
    lambda pair: ScalingLimits(replicas_min=pair[0], replicas_max=max(pair[1], 1))
)


@given(STATES, DEMANDS, BOUNDS)
def test_the_bounds_hold_and_a_shrinking_pool_keeps_room_for_its_demand(
    state: ScalingState, seen: PoolDemand, limits: ScalingLimits
) -> None:
    found = scale(state, seen, limits, now_s=1.0)
    assert limits.replicas_min <= found.replicas <= limits.replicas_max
    if found.replicas < seen.replicas and found.reason is not Reason.BOUNDS:
        room = found.replicas * seen.slots_per_replica * limits.target_share
        assert seen.busy + seen.queued <= room + 1e-6
    if found.replicas > seen.replicas and found.reason is not Reason.BOUNDS:
        assert seen.busy + seen.queued > limits.high_share * seen.replicas * seen.slots_per_replica


@given(DEMANDS, BOUNDS)
def test_more_demand_never_wants_fewer(seen: PoolDemand, limits: ScalingLimits) -> None:
    more = PoolDemand(
        replicas=seen.replicas,
        slots_per_replica=seen.slots_per_replica,
        busy=seen.busy + 1,
        queued=seen.queued,
    )
    assert wanted_replicas(more, limits) >= wanted_replicas(seen, limits)


@given(st.integers(0, 200), st.integers(1, 16), BOUNDS, st.integers(0, 20))
def test_a_steady_demand_comes_to_rest_and_never_swings(
    asked: int, slots: int, limits: ScalingLimits, start: int
) -> None:
    state, replicas, counts = ScalingState(), start, []
    for look in range(400):
        busy = min(asked, replicas * slots)
        seen = PoolDemand(replicas=replicas, slots_per_replica=slots, busy=busy, queued=asked - busy)
        found: Scaling = scale(state, seen, limits, now_s=look * 5.0)
        state, replicas = found.state, found.replicas
        counts.append(replicas)
    assert len(set(counts[-250:])) == 1, "it rests"
    changes = [later - before for before, later in itertools.pairwise(counts) if later != before]
    assert all(change > 0 for change in changes) or all(change < 0 for change in changes), "one direction"
