"""How many replicas a pool should have: its load in, a count out, with the reason.

Target tracking, as Kubernetes' HorizontalPodAutoscaler does it: enough replicas that the demand (what runs and what
waits) fills `target_share` of their slots. What keeps it calm:

- **hysteresis**: it grows when the demand is above `high_share` of the slots, and shrinks only to a count whose
  `target_share` the demand fits in, so that neither answers the other;
- replicas that are still starting count, so one burst is answered once;
- **cooldown**: growing again waits `up_cooldown_s`; shrinking waits until fewer were enough for the whole of
  `down_after_s`, and then goes to the most that was wanted within that time.

The bounds hold at once, whatever the load. From zero the first request wakes one replica.
"""

import math
from enum import StrEnum
from typing import Final

import msgspec

from skep.errors import InvalidConfig

REPLICAS_MAX: Final = 10_000


class ScalingLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of a pool and the pace of its changes. `replicas_min` 0 lets an idle pool go."""

    replicas_min: int = 1
    replicas_max: int = 1
    target_share: float = 0.7
    high_share: float = 0.9
    up_cooldown_s: float = 15.0
    down_after_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse limits under which a count could not rest."""
        if not 0 <= self.replicas_min <= self.replicas_max <= REPLICAS_MAX or self.replicas_max < 1:
            raise InvalidConfig(
                f"scaling from {self.replicas_min} to {self.replicas_max}: at least 0, the first at most the second, "
                f"and from 1 to {REPLICAS_MAX} at most"
            )
        if not 0 < self.target_share <= self.high_share < math.inf:
            raise InvalidConfig("scaling: target_share is above 0 and at most high_share")
        if not (0 <= self.up_cooldown_s < math.inf and 0 <= self.down_after_s < math.inf):
            raise InvalidConfig("scaling: up_cooldown_s and down_after_s are 0 or more")


class PoolDemand(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool has, and what is asked of it. `replicas` counts those that start too, but not those that drain."""

    replicas: int
    slots_per_replica: int
    busy: int
    queued: int = 0


class ScalingState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered: when the pool last grew, since when fewer would do, and the most wanted since then."""

    grown_s: float = -math.inf
    low_since_s: float | None = None
    wanted_most: int = 0


class Reason(StrEnum):
    """Why the count is what it is."""

    STEADY = "steady"
    BOUNDS = "bounds"
    HIGH = "high"
    COOLING = "cooling"
    AT_MOST = "at_most"
    LOW = "low"
    LOW_FOR_LONG = "low_for_long"


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there should be, why, and what to pass in the next time."""

    replicas: int
    reason: Reason
    state: ScalingState


def wanted_replicas(demand: PoolDemand, limits: ScalingLimits) -> int:
    """Return how many replicas this demand fills to the target share, within the bounds."""
    asked = demand.busy + demand.queued
    # The float is rounded so that 0.7 × 10 slots are 7 requests, not 8 replicas' worth of one too many.
    filled = math.ceil(round(asked / (max(demand.slots_per_replica, 1) * limits.target_share), 9))
    return min(max(filled, limits.replicas_min), limits.replicas_max)


def scale(state: ScalingState, demand: PoolDemand, limits: ScalingLimits, *, now_s: float) -> Scaling:
    """Decide how many replicas a pool should have now."""
    have, wanted = demand.replicas, wanted_replicas(demand, limits)
    bounded = min(max(have, limits.replicas_min), limits.replicas_max)
    if bounded != have:
        grown_s = now_s if bounded > have else state.grown_s
        return Scaling(replicas=bounded, reason=Reason.BOUNDS, state=ScalingState(grown_s=grown_s))
    asked, slots = demand.busy + demand.queued, have * max(demand.slots_per_replica, 1)
    if asked > limits.high_share * slots:
        return _up(state, have, wanted, limits, now_s)
    if wanted < have:
        return _down(state, have, wanted, limits, now_s)
    return Scaling(replicas=have, reason=Reason.STEADY, state=ScalingState(grown_s=state.grown_s))


def _up(state: ScalingState, have: int, wanted: int, limits: ScalingLimits, now_s: float) -> Scaling:
    calm = ScalingState(grown_s=state.grown_s)
    if wanted <= have:
        return Scaling(replicas=have, reason=Reason.AT_MOST, state=calm)
    if have and now_s - state.grown_s < limits.up_cooldown_s:
        return Scaling(replicas=have, reason=Reason.COOLING, state=calm)
    return Scaling(replicas=wanted, reason=Reason.HIGH, state=ScalingState(grown_s=now_s))


def _down(state: ScalingState, have: int, wanted: int, limits: ScalingLimits, now_s: float) -> Scaling:
    since_s = now_s if state.low_since_s is None else state.low_since_s
    most = min(max(wanted, state.wanted_most), have)
    if now_s - since_s < limits.down_after_s:
        kept = ScalingState(grown_s=state.grown_s, low_since_s=since_s, wanted_most=most)
        return Scaling(replicas=have, reason=Reason.LOW, state=kept)
    return Scaling(replicas=most, reason=Reason.LOW_FOR_LONG, state=ScalingState(grown_s=state.grown_s))
