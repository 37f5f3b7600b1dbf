"""The circuit breaker: after failures in a row, stop trying for a while, then let exactly one trial through.

The intuition: restarting something that cannot work costs the machine and hides the fault. While the breaker is open
nothing is tried; then one trial decides: stable for a while closes it, a failure opens it again for twice as long.
"""

from enum import StrEnum, auto

import msgspec


class BreakerState(StrEnum):
    """Closed lets everything through, open nothing, half-open one trial."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class BreakerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers."""

    failures_max: int = 5
    open_s: float = 300.0
    open_s_max: float = 4 * 3600.0
    stable_s: float = 60.0


DEFAULT = BreakerLimits()


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Where a breaker stands. `failures` in a row; `until_s` when it may be tried.

    `open_s` is how long it was open the last time, 0 before the first.
    """

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    until_s: float = 0.0
    open_s: float = 0.0


def failed(breaker: Breaker, *, now_s: float, limits: BreakerLimits = DEFAULT) -> Breaker:
    """Return the breaker after a failure: a failed trial doubles the time, the last straw opens it."""
    failures = breaker.failures + 1
    if breaker.state is BreakerState.HALF_OPEN:
        open_s = min((breaker.open_s or limits.open_s) * 2, limits.open_s_max)
        return Breaker(state=BreakerState.OPEN, failures=failures, until_s=now_s + open_s, open_s=open_s)
    if breaker.state is BreakerState.CLOSED and failures >= limits.failures_max:
        return tripped(msgspec.structs.replace(breaker, failures=failures), now_s=now_s, limits=limits)
    return msgspec.structs.replace(breaker, failures=failures)


def tripped(breaker: Breaker, *, now_s: float, limits: BreakerLimits = DEFAULT) -> Breaker:
    """Return the breaker opened at once, whatever it counted."""
    open_s = breaker.open_s or limits.open_s
    until_s = max(breaker.until_s, now_s + open_s)
    return msgspec.structs.replace(breaker, state=BreakerState.OPEN, until_s=until_s, open_s=open_s)


def can_try(breaker: Breaker, *, now_s: float) -> bool:
    """True when something may be started now. Half-open, the one trial is already on its way."""
    match breaker.state:
        case BreakerState.CLOSED:
            return True
        case BreakerState.OPEN:
            return now_s >= breaker.until_s
        case BreakerState.HALF_OPEN:
            return False


def tried(breaker: Breaker) -> Breaker:
    """Return the breaker after a start that `can_try` allowed: an open one is half-open now, its trial running."""
    if breaker.state is BreakerState.OPEN:
        return msgspec.structs.replace(breaker, state=BreakerState.HALF_OPEN)
    return breaker


def ran(breaker: Breaker, *, stable_s: float, reset_s: float, limits: BreakerLimits = DEFAULT) -> Breaker:
    """Return the breaker when something has run for `stable_s`: a trial closes it, `reset_s` forgets old failures."""
    if breaker.state is BreakerState.HALF_OPEN and stable_s >= limits.stable_s:
        return Breaker()
    if breaker.state is BreakerState.CLOSED and stable_s >= reset_s:
        return Breaker()
    return breaker
