"""The life of a replica, one worker process. No other file knows these rules."""

from enum import StrEnum, auto
from typing import Final

from skep.lifecycle.table import Table


class ReplicaState(StrEnum):
    """Where a replica is."""

    PLANNED = auto()
    STARTING = auto()
    READY = auto()
    SUSPECT = auto()
    DRAINING = auto()
    STOPPING = auto()
    CRASHED = auto()
    HELD = auto()
    STOPPED = auto()  # Terminal: a new replica is a new machine with a new id.
    FAILED = auto()  # Terminal.


class ReplicaEvent(StrEnum):
    """What can happen to a replica. `proved`: identity and one token; `reaped`: gone, and its memory is back."""

    SPAWNED = auto()
    CANNOT_START = auto()
    PROVED = auto()
    EXITED = auto()
    START_TIMED_OUT = auto()
    DEVICE_ERROR = auto()
    STOP = auto()
    PROBE_MISSED = auto()
    PROBE_ANSWERED = auto()
    PROBES_EXHAUSTED = auto()
    DRAIN = auto()
    IDLE = auto()
    DEADLINE = auto()
    REAPED = auto()
    REAP_TIMED_OUT = auto()
    RESTART = auto()
    BREAKER_OPEN = auto()
    TRIAL = auto()
    RESET = auto()


_S, _E = ReplicaState, ReplicaEvent
REPLICA: Final = Table(
    "replica",
    states=ReplicaState,
    events=ReplicaEvent,
    initial=_S.PLANNED,
    transitions={
        (_S.PLANNED, _E.SPAWNED): _S.STARTING,
        (_S.PLANNED, _E.CANNOT_START): _S.FAILED,
        (_S.STARTING, _E.PROVED): _S.READY,
        (_S.STARTING, _E.EXITED): _S.CRASHED,
        (_S.STARTING, _E.START_TIMED_OUT): _S.CRASHED,
        (_S.STARTING, _E.DEVICE_ERROR): _S.CRASHED,
        (_S.STARTING, _E.STOP): _S.STOPPING,
        (_S.READY, _E.PROBE_MISSED): _S.SUSPECT,
        (_S.READY, _E.EXITED): _S.CRASHED,
        (_S.READY, _E.DEVICE_ERROR): _S.CRASHED,
        (_S.READY, _E.DRAIN): _S.DRAINING,
        (_S.READY, _E.STOP): _S.STOPPING,
        (_S.SUSPECT, _E.PROBE_ANSWERED): _S.READY,
        (_S.SUSPECT, _E.PROBES_EXHAUSTED): _S.CRASHED,
        (_S.SUSPECT, _E.EXITED): _S.CRASHED,
        (_S.SUSPECT, _E.DEVICE_ERROR): _S.CRASHED,
        (_S.SUSPECT, _E.DRAIN): _S.DRAINING,
        (_S.SUSPECT, _E.STOP): _S.STOPPING,
        (_S.DRAINING, _E.IDLE): _S.STOPPING,
        (_S.DRAINING, _E.DEADLINE): _S.STOPPING,
        (_S.DRAINING, _E.STOP): _S.STOPPING,
        (_S.DRAINING, _E.EXITED): _S.STOPPING,
        (_S.DRAINING, _E.DEVICE_ERROR): _S.STOPPING,
        (_S.STOPPING, _E.REAPED): _S.STOPPED,
        (_S.STOPPING, _E.REAP_TIMED_OUT): _S.FAILED,
        (_S.CRASHED, _E.RESTART): _S.STARTING,
        (_S.CRASHED, _E.BREAKER_OPEN): _S.HELD,
        (_S.CRASHED, _E.STOP): _S.STOPPING,
        (_S.HELD, _E.TRIAL): _S.STARTING,
        (_S.HELD, _E.RESET): _S.STARTING,
        (_S.HELD, _E.STOP): _S.STOPPED,
    },
)

advance = REPLICA.advance
