"""The life of a job, one inference request on one engine. No other file knows these rules.

`done`, `cancelled`, `timed_out` and `failed` are terminal, and each is exactly one terminal event on the wire.
A job that lost its cache room to others (`preempted`) queues again, ahead of newcomers, and loses no token.
"""

from enum import StrEnum, auto
from typing import Final

from skep.lifecycle.table import Table


class JobState(StrEnum):
    """Where a job is. `paused`: its reader is behind, so its slot waits."""

    QUEUED = auto()
    PREFILL = auto()
    DECODING = auto()
    PAUSED = auto()
    DONE = auto()  # Terminal.
    CANCELLED = auto()  # Terminal.
    TIMED_OUT = auto()  # Terminal.
    FAILED = auto()  # Terminal.


class JobEvent(StrEnum):
    """What can happen to a job."""

    ADMITTED = auto()
    FIRST_TOKEN = auto()
    FINISHED = auto()
    CANCEL = auto()
    DEADLINE = auto()
    FAULT = auto()
    CONSUMER_STALLED = auto()
    CONSUMER_BACK = auto()
    STALL_DEADLINE = auto()
    PREEMPTED = auto()


_S, _E = JobState, JobEvent
_LIVE = (_S.QUEUED, _S.PREFILL, _S.DECODING, _S.PAUSED)
_ENDS = {_E.CANCEL: _S.CANCELLED, _E.DEADLINE: _S.TIMED_OUT, _E.FAULT: _S.FAILED}
JOB: Final = Table(
    "job",
    states=JobState,
    events=JobEvent,
    initial=_S.QUEUED,
    transitions={
        (_S.QUEUED, _E.ADMITTED): _S.PREFILL,
        (_S.PREFILL, _E.FIRST_TOKEN): _S.DECODING,
        (_S.PREFILL, _E.FINISHED): _S.DONE,
        (_S.PREFILL, _E.PREEMPTED): _S.QUEUED,
        (_S.DECODING, _E.FINISHED): _S.DONE,
        (_S.DECODING, _E.CONSUMER_STALLED): _S.PAUSED,
        (_S.DECODING, _E.PREEMPTED): _S.QUEUED,
        (_S.PAUSED, _E.CONSUMER_BACK): _S.DECODING,
        (_S.PAUSED, _E.STALL_DEADLINE): _S.CANCELLED,
        (_S.PAUSED, _E.PREEMPTED): _S.QUEUED,
        **{(state, event): end for state in _LIVE for event, end in _ENDS.items()},
    },
)

advance = JOB.advance
