"""Whether, and when, a replica that crashed starts again: backoff, two breakers and the storm, as one verdict.

Each replica has its own history, and a pool one storm for all of its replicas. A device error counts on a breaker of its
own, so that a flaky driver and a broken model are told apart. Everything is a value: state and facts in, state and
verdict out, and the verdict carries its inputs, so that `skep pool why` can print them.
"""

from enum import StrEnum, auto

import msgspec

from skep.policy import backoff, breaker, storm
from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import Breaker, BreakerLimits, BreakerState
from skep.policy.storm import Storm, StormLimits

OUT_OF_MEMORY_MAX = 3


class CrashReason(StrEnum):
    """Why a replica is gone. A normal exit (code 0) is no crash, but the replica is missing all the same."""

    EXIT_CODE = auto()
    SIGNAL = auto()
    HEALTH = auto()
    DEVICE_ERROR = auto()
    OUT_OF_MEMORY = auto()
    START_TIMEOUT = auto()
    NORMAL_EXIT = auto()


class Action(StrEnum):
    """What to do now. `hold`: wait for `reset`, or for a trial at `not_before_s`."""

    RESTART = auto()
    HOLD = auto()


class RestartLimits(msgspec.Struct, frozen=True, kw_only=True):
    """All the numbers of this policy."""

    backoff: BackoffLimits = backoff.DEFAULT
    breaker: BreakerLimits = breaker.DEFAULT
    storm: StormLimits = storm.DEFAULT


DEFAULT = RestartLimits()


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica has been through. Counts are failures in a row."""

    failures: int = 0
    out_of_memory: int = 0
    restarts: int = 0
    breaker: Breaker = Breaker()
    device_breaker: Breaker = Breaker()

    @property
    def breaker_state(self) -> BreakerState:
        """The worse of both breakers."""
        states = (self.breaker.state, self.device_breaker.state)
        order = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)
        return next(state for state in order if state in states)


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `ready_s` is how long the replica had been ready; `jitter` a draw from −1 to 1."""

    reason: CrashReason
    ready_s: float
    now_s: float
    jitter: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, why, and what it was decided from."""

    action: Action
    reason: CrashReason
    because: str
    delay_s: float
    not_before_s: float
    failures: int
    breaker: BreakerState
    device_breaker: BreakerState
    is_storm: bool = False
    is_out_of_memory_repeated: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, and the states that follow from it."""

    history: History
    storm: Storm
    verdict: Verdict


def crashed(history: History, window: Storm, crash: Crash, *, limits: RestartLimits = DEFAULT) -> Outcome:
    """Decide what becomes of a replica that is gone."""
    history = ran(history, ready_s=crash.ready_s, limits=limits)
    window = storm.restarted(window, now_s=crash.now_s, limits=limits.storm)
    history = _count(history, crash, limits)
    stormy = storm.is_storm(window, now_s=crash.now_s, limits=limits.storm)
    if stormy and history.breaker.state is not BreakerState.OPEN:
        history = msgspec.structs.replace(
            history, breaker=breaker.tripped(history.breaker, now_s=crash.now_s, limits=limits.breaker)
        )
    return Outcome(history=history, storm=window, verdict=_judge(history, crash, stormy, limits))


def ran(history: History, *, ready_s: float, limits: RestartLimits = DEFAULT) -> History:
    """Return the history when the replica has been ready for `ready_s`: stable ones are forgiven."""
    reset_s = limits.backoff.stable_s
    healed = {
        name: breaker.ran(getattr(history, name), stable_s=ready_s, reset_s=reset_s, limits=limits.breaker)
        for name in ("breaker", "device_breaker")
    }
    history = msgspec.structs.replace(history, **healed)
    if ready_s < reset_s:
        return history
    return msgspec.structs.replace(history, failures=0, out_of_memory=0)


def can_try(history: History, *, now_s: float) -> bool:
    """True when both breakers let a start through."""
    return breaker.can_try(history.breaker, now_s=now_s) and breaker.can_try(
        history.device_breaker, now_s=now_s
    )


def due_s(history: History) -> float:
    """Return when the next start may be: 0 unless a breaker is open."""
    breakers = (history.breaker, history.device_breaker)
    return max((one.until_s for one in breakers if one.state is BreakerState.OPEN), default=0.0)


def tried(history: History) -> History:
    """Return the history after a start: an open breaker is on trial now."""
    return msgspec.structs.replace(
        history,
        restarts=history.restarts + 1,
        breaker=breaker.tried(history.breaker),
        device_breaker=breaker.tried(history.device_breaker),
    )


def reset(history: History) -> History:
    """Return the history forgiven by hand; only the count of restarts stays."""
    return History(restarts=history.restarts)


def _count(history: History, crash: Crash, limits: RestartLimits) -> History:
    if crash.reason is CrashReason.NORMAL_EXIT:
        return history
    is_device = crash.reason is CrashReason.DEVICE_ERROR
    mine, other = ("device_breaker", "breaker") if is_device else ("breaker", "device_breaker")
    after = breaker.failed(getattr(history, mine), now_s=crash.now_s, limits=limits.breaker)
    beside: Breaker = getattr(history, other)
    if beside.state is BreakerState.HALF_OPEN:  # Its trial failed, if for another reason: it waits again.
        beside = breaker.failed(beside, now_s=crash.now_s, limits=limits.breaker)
    return msgspec.structs.replace(
        history,
        failures=history.failures + 1,
        out_of_memory=history.out_of_memory + 1 if crash.reason is CrashReason.OUT_OF_MEMORY else 0,
        **{mine: after, other: beside},
    )


def _judge(history: History, crash: Crash, stormy: bool, limits: RestartLimits) -> Verdict:
    delay_s = backoff.delay_s(
        history.failures,
        jitter=crash.jitter,
        is_device_error=crash.reason is CrashReason.DEVICE_ERROR,
        limits=limits.backoff,
    )
    until_s = due_s(history)
    held = until_s > crash.now_s
    repeated = history.out_of_memory >= OUT_OF_MEMORY_MAX
    return Verdict(
        action=Action.HOLD if held else Action.RESTART,
        reason=crash.reason,
        because=_because(history, crash, stormy=stormy, repeated=repeated, held=held),
        delay_s=until_s - crash.now_s if held else delay_s,
        not_before_s=until_s if held else crash.now_s + delay_s,
        failures=history.failures,
        breaker=history.breaker.state,
        device_breaker=history.device_breaker.state,
        is_storm=stormy,
        is_out_of_memory_repeated=repeated,
    )


def _because(history: History, crash: Crash, *, stormy: bool, repeated: bool, held: bool) -> str:
    parts = [f"{crash.reason} after {crash.ready_s:.1f} s ready, failure {history.failures} in a row"]
    if stormy:
        parts.append("a restart storm")
    if repeated:
        parts.append("out of memory again and again: give it fewer slots, less context or another device")
    if history.device_breaker.state is BreakerState.OPEN:
        parts.append("the device breaker is open")
    if history.breaker.state is BreakerState.OPEN:
        parts.append("the breaker is open")
    parts.append("held" if held else "restarted with backoff")
    return "; ".join(parts)
